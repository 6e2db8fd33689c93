"""Remove attention heads by a label-free criterion: what meta-pruning is held against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compressor.plugin import Component, hookimpl
from compressor_plugins.methods._head_pruning import HeadPruning

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences


class Heads(HeadPruning):
    """Remove the attention heads of lowest score under one of four criteria; no labels, no training, nothing is re-fitted.

    ``relation`` is the objective of single-shot meta-pruning (https://arxiv.org/abs/2011.03770) itself: how much the
    relations of sentences in a batch change without one head, every head tried (one partial forward pass each).
    ``output-norm`` is what a head adds to its layer: ``|A V W_o|``, the mean over tokens (Kobayashi et al. 2020,
    https://arxiv.org/abs/2004.10102, of whole heads). ``curvature`` is the second derivative of the divergence from the dense
    output at the head's gate. ``random`` is for comparison.
    """

    name: ClassVar[str] = "heads"

    criterion: Literal["relation", "output-norm", "curvature", "random"] = Field(
        default="relation", description="What scores heads."
    )

    def head_scores(self, session: Session, rows: Sentences) -> Scores:
        """Return the criterion's scores."""
        from compressor_plugins.methods._head_scores import head_scores

        return head_scores(self, session, rows)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Heads
