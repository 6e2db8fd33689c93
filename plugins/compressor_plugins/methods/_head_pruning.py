"""The options of methods that remove attention heads by a score. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from compressor.plugin import Pruned, PruningMethod, Target

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences

Mode = Literal["pair", "single"]
AMOUNTS = ("heads", "macs", "params", "latency", "latency_ms")


class HeadPruning(PruningMethod):
    """Score every head without labels, and remove the lowest; FFNs stay, nothing is re-fitted.

    Under ``target: {heads: 0.5}`` every layer loses the same share of its heads; under any other target heads are ranked
    over all layers. Ties go by index: of equal heads the later one is removed.
    """

    target: Target = Field(
        description="Fraction of every layer's heads to keep, {heads: 0.5}; or of the encoder's MACs, parameters or measured "
        "latency, reached by removing heads of any layer and nothing else, e.g. {macs: 0.85}."
    )
    sentences: int = Field(
        default=128,
        ge=2,
        description="Calibration rows that scores are means over, drawn by seed; 64 to 256 are enough.",
    )
    mode: Mode | None = Field(
        default=None,
        description="What rows are: pairs of texts, told apart by the pooled first token, or single texts, told apart by "
        "the mean of their tokens. Default: as the task says.",
    )
    least_heads: int = Field(
        default=1,
        ge=0,
        description="Heads that every layer keeps where they are ranked over all layers; 0 may empty some.",
    )

    @field_validator("target")
    @classmethod
    def _of_heads(cls, target: Target) -> Target:
        if target.amount not in AMOUNTS:
            message = f"expected target.{', target.'.join(AMOUNTS[:-1])} or .{AMOUNTS[-1]}; got target.{target.amount}"
            raise ValueError(message)
        return target

    @abc.abstractmethod
    def head_scores(self, session: Session, rows: Sentences) -> Scores:
        """Return a score of every head, per group name, shape (units,), not negative; higher = keep.

        Args:
            session: gives the seed and the task.
            rows: the sentences, and the model that reads them.
        """

    def starting_model(self, session: Session) -> nn.Module:
        """Return the model whose heads are scored and removed: the session's, or one of its shape whose weights replace it."""
        return session.model

    def prune(self, session: Session) -> Pruned:
        """Return masks of heads."""
        return next(iter(self.prune_all(session, [self.target])))

    def prune_all(self, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
        """Yield what each target gives; heads are scored once."""
        from compressor_plugins.methods._head_masks import prune_all

        return prune_all(self, session, targets)
