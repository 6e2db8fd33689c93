"""Zero the weights of lowest score, in a pattern, at once and without training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import Choice, Component, Criterion, Pruned, hookimpl
from compressor_plugins.criteria.magnitude import Magnitude
from compressor_plugins.methods._weight_pruning import Compared

if TYPE_CHECKING:
    from compressor.run.session import Session


class OneShot(Compared):
    """Score every weight on the calibration rows, and zero the lowest in a pattern; nothing is trained or re-fitted.

    The count is exact, to the block: thresholds by bisection, ties by index. Zeros in single weights, blocks and N:M make no
    model faster in onnxruntime; what rows and columns leave empty is taken out.
    """

    name: ClassVar[str] = "one_shot"

    criterion: Choice[Criterion] = Field(
        default=Magnitude(),
        description="What scores weights: magnitude (no rows needed), wanda, or one of gradients of the loss.",
    )

    @property
    def shows_together(self) -> bool:
        """Whether the criterion is shown one gradient of all rows."""
        return "gradients" in self.criterion.needs and not self.criterion.accumulates

    @property
    def joint(self) -> bool:
        """Whether batches are divided among processes: where their gradients add up."""
        return self.shows_together

    def prune(self, session: Session) -> Pruned:
        """Return masks of weights."""
        from compressor_plugins.methods._one_shot import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield OneShot
