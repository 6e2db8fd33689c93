"""The contracts: what a plugin can provide. Importing this module does not import torch.

A component is a frozen declaration. Its fields are its YAML options, one method is its behaviour. Modules that define
components import torch and friends inside that method only, so that recipes are checked without them.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from compressor.model.artifact import Artifact
    from compressor.model.groups import PrunableGroup
    from compressor.model.masks import Masks, Scores
    from compressor.run.session import Session

Head = Literal["sequence-classification", "feature-extraction"]
Split = Literal["train", "validation"]


class Component(BaseModel, abc.ABC):
    """Root of every contract: a frozen, keyword-only declaration whose fields are its YAML options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    name: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """Return every option, nested components included, as plain data that validates back to an equal component."""
        return self.model_dump(mode="json", by_alias=False)

    def __repr__(self) -> str:
        """Return the options that were set, as a call: ``fisher(target=Target(macs=0.6))``."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        shown = {name: str(value) if isinstance(value, PurePath) else value for name, value in given.items()}
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    __str__ = __repr__


@dataclass(frozen=True)
class Pruned:
    """Everything a pruning method changed; only ``run/steps.py`` applies it.

    Attributes:
        masks: ``True`` = keep, per group, shape ``(units,)``.
        weights: replacements for parameters of the *unpruned* model, by parameter name and with its shape.
            They are copied in before the masked units are removed.
        metrics: figures worth reporting, e.g. ``{"macs_kept": 0.5997}``.
    """

    masks: Masks
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


class PruningMethod(Component):
    """Decides what goes: reads the session's model and calibration batches, returns masks and updated weights."""

    kind: ClassVar[str] = "method"

    @abc.abstractmethod
    def prune(self, session: Session) -> Pruned:
        """Return the masks (and updated weights) for ``session.model``, which stays untouched."""


class CriterionRun(abc.ABC):
    """A criterion at work: accumulates what it is shown and can be saved and resumed."""

    @abc.abstractmethod
    def observe(
        self, *, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], activations: Mapping[str, Tensor]
    ) -> None:
        """Take in one batch; every mapping is keyed like the targets that the run was started with."""

    @abc.abstractmethod
    def scores(self) -> Scores:
        """Return the scores so far; higher = keep."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return what must be saved to resume."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""


class Criterion(Component):
    """Scores weights or units: magnitude, movement, ..."""

    kind: ClassVar[str] = "criterion"

    @abc.abstractmethod
    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        """Start scoring the named targets, whose score shapes are given."""


class SparsityPattern(Component):
    """Turns scores into masks of one shape: element-wise, N:M, block, channel."""

    kind: ClassVar[str] = "pattern"

    @abc.abstractmethod
    def select(self, scores: Scores, sparsity: float) -> Masks:
        """Return masks that remove the fraction ``sparsity`` in [0, 1) of the scored elements."""


class ModelFamily(Component):
    """A table that says where a family of models keeps its heads and neurons."""

    kind: ClassVar[str] = "family"
    model_types: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return every prunable group of the model as it is now, bottom to top, attention before FFN."""

    def after_shrink(self, model: nn.Module) -> None:
        """Adjust what slices cannot express (nothing, for most families)."""


class Task(Component):
    """Data, the model's output that matters, and the metric.

    ``z`` below is the task's output: class logits ``(B, C)``, a regression value ``(B, 1)``, an embedding ``(B, D)``.
    """

    kind: ClassVar[str] = "task"
    head: ClassVar[Head]
    label_free: ClassVar[bool] = False

    max_length: int = Field(default=128, ge=4, description="Tokens a sample is truncated to.")

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """Name of the metric that gates compare; higher is better."""

    @property
    def num_labels(self) -> int | None:
        """Outputs of the classification head, when the task knows; 1 = regression."""
        return None

    @abc.abstractmethod
    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return tokenised rows: ``input_ids``, ``attention_mask``, (``token_type_ids``,) and ``labels`` if any.

        Args:
            split: which rows.
            tokenizer: of the checkpoint.
            label2id: class ids by name in the checkpoint's config: label names in the data follow its order.
        """

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return z, shape (B, C), from the model's raw output: logits as they are, unless the task pools."""
        return raw

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of every sample, shape (B,). Label-free tasks have none."""
        raise TypeError(f"task '{self.name}' has no labels, hence no loss")

    def divergences(self, z: Tensor, dense: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return how far every sample's output is from the dense model's, shape (B,), in nats for classes.

        ``temperature**2 * KL(softmax(dense / temperature) || softmax(z / temperature))`` over the classes; the squared
        distance where there are none (one output, or a task without labels).

        Args:
            z: output of the model, shape (B, C).
            dense: output of the dense model, the same shape.
            temperature: softens both sides, positive.
        """
        if self.label_free or z.shape[1] == 1:
            return (z - dense).square().sum(dim=1)
        log_p, log_q = ((output / temperature).log_softmax(dim=1) for output in (dense, z))
        divergences: Tensor = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)
        return divergences

    def curvature(
        self, z: Tensor, *, temperature: float = 1.0, draws: int = 1, generator: np.random.Generator
    ) -> Tensor:
        """Return scalars of every sample, shape (B, K), that stand for the Hessian of ``divergences`` at the dense model.

        With gradients ``g_k`` of the K scalars, ``sum_k g_k g_k'`` is that Hessian; in expectation over the generator
        where something is drawn. The divergence itself has no gradient there. For C classes K = C - 1: the columns of
        the Cholesky factor of ``diag(p) - p p'``, known in closed form. For distances: random sign projections.

        Args:
            z: output of the dense model, shape (B, C).
            temperature: of the divergence.
            draws: K, where projections are drawn.
            generator: of the draws; every row takes its own, in the order of the rows.
        """
        scalars: Tensor
        if z.shape[1] == 1:
            return z * 2**0.5
        if self.label_free:
            signs = generator.integers(0, 2, size=(len(z), draws, z.shape[1])) * 2.0 - 1.0
            scalars = (z.new_tensor(signs) * z.unsqueeze(1)).sum(dim=2) * (2 / draws) ** 0.5
            return scalars
        p = (z.detach() / temperature).softmax(dim=1)
        tail = p.flip(1).cumsum(dim=1).flip(1).clamp_min(1e-30)  # p_j + ... + p_C
        mean_after = (p * z).flip(1).cumsum(dim=1).flip(1)[:, 1:] / tail[:, 1:]
        scalars = (p[:, :-1] * tail[:, 1:] / tail[:, :-1]).sqrt() * (z[:, :-1] - mean_after)
        return scalars

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how much each token of the *last* layer matters to z, shape (B, T): the padding mask by default."""
        return batch["attention_mask"]

    def rows(self, outputs: np.ndarray, dense: np.ndarray, labels: np.ndarray | None) -> Mapping[str, np.ndarray]:
        """Return what the metrics need of every row, each of shape (n, ...): resampling rows then is a bootstrap.

        Args:
            outputs: z of the model under test, shape (n, C).
            dense: z of the dense model on the same rows, shape (n, C).
            labels: shape (n,), or None for label-free tasks.
        """
        assert labels is not None  # noqa: S101 - a task without labels overrides this method
        return {"outputs": outputs, "labels": labels}

    @abc.abstractmethod
    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return every metric over the given rows, ``self.metric`` among them."""


class LossRun(abc.ABC):
    """A training loss at work."""

    @abc.abstractmethod
    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss of one batch from the two models' outputs."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what must be saved to resume (banks, snapshots)."""
        return {}


class Loss(Component):
    """One term of the training loss; terms add up."""

    kind: ClassVar[str] = "loss"

    @abc.abstractmethod
    def start(self, session: Session) -> LossRun:
        """Start computing this loss for the session's teacher and student."""


class Exporter(Component):
    """Writes a model to a file and checks it against torch."""

    kind: ClassVar[str] = "exporter"

    @abc.abstractmethod
    def export(self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_name: str) -> Artifact:
        """Export ``model``, whose forward takes the named inputs, to ``path``.

        Raises:
            CompressorError: the file does not reproduce torch within the tolerance.
        """


class Quantizer(Component):
    """Makes an int8 file from an exported one."""

    kind: ClassVar[str] = "quantizer"

    @abc.abstractmethod
    def quantize(self, artifact: Artifact, batches: Iterator[Mapping[str, np.ndarray]], path: Path) -> Artifact:
        """Write the quantised model to ``path``; ``batches`` are calibration rows for static methods."""
