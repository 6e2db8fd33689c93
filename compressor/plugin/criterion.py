"""The contract of criteria. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from compressor.errors import CompressorError
from compressor.plugin.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.model.masks import Scores


class CriterionRun(abc.ABC):
    """A criterion at work: accumulates what it is shown and can be saved and resumed."""

    @abc.abstractmethod
    def observe(
        self, *, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], activations: Mapping[str, Tensor]
    ) -> None:
        """Take in one batch, or one training step before the optimizer's update.

        Args:
            weights: as they are, by the targets' names.
            gradients: of the loss, of the weights' shapes; empty unless the criterion ``needs`` them. Weights that the
                loss does not depend on are left out.
            activations: what the targets' layers read, padding left out, shape (tokens, in_features); likewise.
        """

    @abc.abstractmethod
    def scores(self) -> Scores:
        """Return the scores so far, higher = keep, of the targets for which there was anything to see."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return what must be saved to resume."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""


class Criterion(Component):
    """Scores weights or units: magnitude, movement, ...

    Attributes:
        needs: what of a batch ``observe`` reads beside the weights: ``"gradients"``, ``"activations"``.
        accumulates: whether scores gather over batches; otherwise they are of the last one shown, and a method without
            training shows one gradient of all rows.
    """

    kind: ClassVar[str] = "criterion"
    needs: ClassVar[frozenset[str]] = frozenset()
    accumulates: ClassVar[bool] = True

    @abc.abstractmethod
    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        """Start scoring the named targets, whose score shapes are given."""


def read_scores(criterion: Criterion, run: CriterionRun, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the scores of a run, having seen that they are what a method can compare.

    Args:
        criterion: whose run it is, for errors.
        run: which has observed something.
        shapes: of the weights, by parameter name.

    Raises:
        CompressorError: scores are of another weight, have another shape than theirs, or are not all numbers.
    """
    scores = dict(run.scores())
    for name, values in scores.items():
        if name not in shapes:
            wrong = f"scores of '{name}', which is none of the weights that it was started with"
        elif tuple(values.shape) != tuple(shapes[name]):
            wrong = f"scores of '{name}': expected shape {tuple(shapes[name])}, got {tuple(values.shape)}"
        elif bool(values.isnan().any()):
            wrong = f"scores of '{name}': expected numbers, {int(values.isnan().sum())} of {values.numel()} are NaN"
        else:
            continue
        raise CompressorError(
            f"criterion '{criterion.name}' ({type(criterion).__module__}): {wrong}",
            hint="if it is yours, run compressor.testing.assert_criterion_conforms on it; else report it to its authors",
        )
    return scores
