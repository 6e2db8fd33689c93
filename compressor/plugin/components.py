"""The contracts: what a plugin can provide. Importing this module does not import torch.

A component is a frozen declaration. Its fields are its YAML options, one method is its behaviour. Modules that define
components import torch and friends inside that method only, so that recipes are checked without them.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.plugin.component import Component
from compressor.plugin.criterion import Criterion, CriterionRun
from compressor.plugin.loss import Loss, LossRun
from compressor.plugin.metric import Metric
from compressor.plugin.quantization import Quantizer
from compressor.plugin.task import Head, ProblemType, Split, Task

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from compressor.model.artifact import Artifact
    from compressor.model.blocks import Blocks
    from compressor.model.groups import PrunableGroup
    from compressor.model.masks import Masks
    from compressor.plugin.target import Target
    from compressor.plugin.trimmed import Trimmed
    from compressor.run.session import Session

__all__ = [
    "Component",
    "Criterion",
    "CriterionRun",
    "Exporter",
    "Head",
    "Loss",
    "LossRun",
    "Metric",
    "ModelFamily",
    "ProblemType",
    "Pruned",
    "PruningMethod",
    "Quantizer",
    "SparsityPattern",
    "Split",
    "Task",
]


@dataclass(frozen=True)
class Pruned:
    """Everything a pruning method changed; only ``run/steps.py`` applies it.

    Attributes:
        masks: ``True`` = keep; per group, shape ``(units,)``, or per parameter, with its shape. What a parameter's mask
            removes is zero from now on, in training too.
        weights: replacements for parameters of the *unpruned* model, by parameter name and with its shape.
            They are copied in before the masked units are removed.
        metrics: figures worth reporting, e.g. ``{"macs_kept": 0.5997}``.
        dropped_layers: numbers of layers of the *unpruned* model, from 0 at the bottom, that go as a whole: attention,
            FFN, residuals and LayerNorms.
        aligned: parameters whose masks follow a grid (N:M, blocks): units that they empty are not taken out, since that
            would shift the grid.
        trimmed: the tokens and positions that stay, and the tokenizer of these; None = all, with the tokenizer as it is.
    """

    masks: Masks
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    dropped_layers: tuple[int, ...] = ()
    aligned: tuple[str, ...] = ()
    trimmed: Trimmed | None = None


class PruningMethod(Component):
    """Decides what goes: reads the session's model and calibration batches, returns masks and updated weights."""

    kind: ClassVar[str] = "method"

    @property
    def joint(self) -> bool:
        """Whether all processes of a data-parallel run call ``prune``; else the first one does, for all."""
        return False

    @property
    def zeroes(self) -> bool:
        """Whether it leaves zeros in weights that stay, as a target of sparsity asks for."""
        return getattr(getattr(self, "target", None), "sparsity", None) is not None

    @property
    def reads_texts(self) -> bool:
        """Whether it decides by the tokenizer and by every train row: ``session.train_rows`` are then there."""
        return False

    @property
    def longest(self) -> int | None:
        """Tokens of the longest sequence that it leaves the model, where it cuts positions."""
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files, named by its options, whose content the result depends on."""
        return ()

    def read_whole(self, task: Task) -> tuple[Task, ...]:
        """Return the tasks all of whose train rows the result depends on, by its own hand, beside the calibration rows.

        Args:
            task: the recipe's; a method that loads its train rows returns it as well.
        """
        del task
        return ()

    def check(self, model: nn.Module) -> None:
        """Check that the options suit the model that a run starts from, before hours are spent on steps that come first.

        It is called once, where no other step prunes before.

        Raises:
            InputError: they do not; says which option, and what the model has.
        """

    def check_texts(self, session: Session, *, first: bool) -> None:
        """Check that the options suit the tokenizer and the model that a run starts from; called wherever ``reads_texts``.

        Args:
            session: as it was loaded: what earlier steps prune and train is there still as it was.
            first: whether no earlier step reads texts: the tokens are then those that the step will find.

        Raises:
            InputError: they do not; says which option, and what the tokenizer has.
        """

    @abc.abstractmethod
    def prune(self, session: Session) -> Pruned:
        """Return the masks (and updated weights) for ``session.model``, which stays untouched."""

    def prune_all(self, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
        """Yield what ``prune`` returns for each target, in order; ``compress sweep`` calls it for the option ``target``.

        A method that can share work between targets overrides it. It yields every member as soon as it is known, which
        is then kept, and equals what ``prune`` with that target alone gives: torch's seed is set anew before each.

        Args:
            session: of the sweep's first point, whose plan differs from the others' in the target alone.
            targets: in the recipe's order; of a resumed sweep, those that are missing.
        """
        # Defaults that are components too: what the recipe's task and registry made of them is not known here.
        given = {name: value for name, value in self if name in self.model_fields_set or isinstance(value, Component)}
        for target in targets:
            yield type(self).model_validate({**given, "target": target}).prune(session)


class SparsityPattern(Component):
    """Says which elements of a weight live or die together.

    Attributes:
        structured: whether it removes whole rows or columns, which can be taken out of a model for good.
        most: largest sparsity that it allows, e.g. 0.5 for 2:4.
        use: what zeros in this pattern are good for, for the remarks of ``compress plan`` and the report.
    """

    kind: ClassVar[str] = "pattern"
    structured: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """The pattern as people write it: ``2:4``, ``4x1``."""

    @property
    def most(self) -> float:
        """Largest sparsity that the pattern allows."""
        return 1.0

    @property
    def use(self) -> str:
        """What zeros in this pattern are good for."""
        return "a compressed download, and runtimes whose kernels skip such zeros"

    @abc.abstractmethod
    def blocks(self, shape: tuple[int, int]) -> Blocks | None:
        """Return how a weight of shape (out_features, in_features) is cut; None where the shape does not divide."""


class ModelFamily(Component):
    """A table that says where a family of models keeps its heads and neurons; why relatives are refused, by model type."""

    kind: ClassVar[str] = "family"
    model_types: ClassVar[tuple[str, ...]]
    refused: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return every prunable group of the model as it is now, bottom to top, attention before FFN."""

    def fixed_layers(self, model: nn.Module) -> Mapping[int, str]:
        """Return the layers that cannot be dropped, by number, each with the reason (none, for most families)."""
        return {}

    def after_shrink(self, model: nn.Module) -> None:
        """Adjust what slices cannot express (nothing, for most families)."""


class Exporter(Component):
    """Writes a model to a file and checks it against torch."""

    kind: ClassVar[str] = "exporter"

    def check(self, model: nn.Module, task: Task) -> None:
        """Refuse, by an ``InputError``, a model that the options do not suit, before anything expensive is done."""

    @abc.abstractmethod
    def export(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact:
        """Export ``model``, whose forward takes the named inputs and gives the named outputs, to ``path``.

        Raises:
            CompressorError: the file does not reproduce torch within the tolerance.
        """

    def export_fused(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact | str | None:
        """Export ``model`` once more, with operators that onnxruntime alone knows.

        Returns None, as here, for no such file; a reason, for the report, where one was asked for and cannot be.

        Raises:
            CompressorError: the file does not reproduce torch within the tolerance.
        """
        return None
