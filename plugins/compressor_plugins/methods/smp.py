"""Single-shot meta-pruning: a small network looks at attention maps and says which heads to keep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import Component, hookimpl
from compressor_plugins.methods._head_pruning import HeadPruning
from compressor_plugins.methods._smp_options import ScorerSource

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.masks import Scores
    from compressor.plugin import Task
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences


class Smp(HeadPruning):
    """Remove the attention heads whose maps a trained scorer likes least, in one shot, without labels.

    Zhang, Qi, Liu, Liu and Sun, "Know what you don't need: Single-Shot Meta-Pruning for attention heads", AI Open 2021,
    https://arxiv.org/abs/2011.03770. A convolutional network gives each attention map of each sentence a score; a head's is
    the mean over sentences. The released scorers are of BERT-base and BERT-large and disagree with each other: of another
    model, train one (``scorer: {train: {}}``) to keep the relations of sentence vectors in a batch when heads are masked
    at random by its scores.

    As published under ``target: {heads: ...}``. Always different: heads are removed, not masked; every sentence weighs the
    same, whatever its batch; the quota is exact where scores tie, and asks nothing of a layer below one head.
    """

    name: ClassVar[str] = "smp"

    scorer: ScorerSource = Field(
        description="File of a scorer: safetensors of an earlier training, or a released .bin; or {train: {...}}, which trains "
        "one on this model and leaves scorer.safetensors in the step's directory."
    )
    length_normalised: bool = Field(
        default=False,
        description="Crop maps to the real tokens and stretch them to 128, so that a pattern scores alike at any length; "
        "as published, they are padded with zeros.",
    )

    rewind: bool = Field(
        default=False,
        description="Score and prune the checkpoint that the run started from, with its own weights, to be fine-tuned by the "
        "step that follows: as published, where heads go before fine-tuning. A train step may come first, to make the "
        "dense model that is compared with.",
    )

    @property
    def files(self) -> tuple[Path, ...]:
        """The scorer's, where one is named."""
        return (self.scorer,) if isinstance(self.scorer, Path) else ()

    def read_whole(self, task: Task) -> tuple[Task, ...]:
        """Return the tasks whose texts a scorer is trained on."""
        return () if isinstance(self.scorer, Path) else self.scorer.train.tasks or (task,)

    def starting_model(self, session: Session) -> nn.Module:
        """Return the session's model, or the checkpoint that the run started from."""
        from compressor_plugins.methods._source import source_model

        return source_model(session, "rewind") if self.rewind else session.model

    def check(self, model: nn.Module) -> None:
        """Check that the scorer's file, if one is given, can be read."""
        from compressor_plugins.methods._smp import check

        check(self, model)

    def head_scores(self, session: Session, rows: Sentences) -> Scores:
        """Return the mean score of every head's maps, in (0, 2)."""
        from compressor_plugins.methods._smp import head_scores

        return head_scores(self, session, rows)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Smp
