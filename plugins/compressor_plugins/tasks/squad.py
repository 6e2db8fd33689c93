"""Extractive question answering on SQuAD, from the hub or from a directory of files in its format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from compressor.plugin import Glance, Task, hookimpl
from compressor.plugin.components import Head, Split
from compressor_plugins.paths import ExistingDirectory
from compressor_plugins.tasks._split_files import SQUAD

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component


class Squad(Task):
    """Answers as spans of a text (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; 2018, arXiv 1806.03822).

    Rows come from the hub's ``rajpurkar/squad`` or ``rajpurkar/squad_v2``, or from ``path``. A context that is too long
    is cut into overlapping windows; an answer is the best span of all windows of its question, and verification counts
    and draws questions. Metrics, as fractions of 1: ``f1``, which gates compare, and ``exact_match``, both normalised and
    taken over several gold answers as in the data set's own evaluation.

    z is ``(B, 2, max_length)``: the start and the end logit of every position, -10000 at those that cannot be an answer:
    question, padding, special tokens but the first, which stands for "no answer". Losses and divergences are the mean of
    those of the start and of the end.
    """

    name: ClassVar[str] = "squad"
    head: ClassVar[Head] = "question-answering"

    version: Literal["1.1", "2.0"] = Field(default="1.1", description="2.0 has questions without an answer.")
    path: ExistingDirectory | None = Field(
        default=None,
        description="Directory with <split>.<parquet|json|jsonl>, columns question, context and answers as on the hub; "
        "default: the hub.",
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch of the hub's data set.")
    train_split: str = Field(default="train", description="Split (without path's file ending) for calibration rows.")
    validation_split: str = Field(default="validation", description="Split for the metric.")
    max_length: int = Field(default=384, ge=16, description="Tokens of a question and a window of its context.")
    stride: int = Field(default=128, ge=0, description="Tokens that a window of the context shares with the next.")
    max_answer_length: int = Field(default=30, ge=1, description="Tokens of the longest answer.")
    n_best: int = Field(default=20, ge=1, description="Starts and ends of every window that are paired to answers.")
    null_score_threshold: float = Field(
        default=0.0, description="No answer (2.0) where its score exceeds the best answer's by more than this."
    )

    @field_validator("version", mode="before")
    @classmethod
    def _number(cls, version: Any) -> Any:
        return str(version) if isinstance(version, float) else version  # as YAML reads an unquoted 2.0

    @property
    def metric(self) -> str:
        """Mean F1 of the words of answers."""
        return "f1"

    @property
    def num_labels(self) -> int:
        """Start and end."""
        return 2

    @property
    def pairs(self) -> bool:
        """A question and its context."""
        return True

    def glance(self, split: Split, *, label2id: Mapping[str, int] | None = None) -> Glance:  # noqa: ARG002 - no classes
        """Return what is wrong with a split's file in ``path``; the hub is not asked."""
        from compressor_plugins.tasks import _glance

        wanted = _glance.Wanted([("path", name) for name in ("question", "context", "answers")], counted=False)
        return _glance.look_in(
            self.path, SQUAD[self.version], (getattr(self, f"{split}_split"), f"{split}_split"), wanted
        )

    def load(
        self,
        split: Split,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label2id: Mapping[str, int] | None = None,  # noqa: ARG002 - the contract's; positions are no classes
    ) -> Dataset:
        """Return the windows of the split's questions; ``labels`` are the first gold answer's first and last token.

        Raises:
            InputError: the split or a column is missing, a row is not as SQuAD has it, or the tokenizer does not serve.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _splits, _squad

        data, stem, option = SQUAD[self.version], getattr(self, f"{split}_split"), f"{split}_split"
        rows, source = _splits.read(data, stem, path=self.path, revision=self.revision, option=option)
        questions = _squad.questions(rows, source=source, unanswerable=self.version == "2.0")
        return _squad.windows(questions, self, tokenizer, source=source, scored=split == "validation")

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return z (B, 2, max_length) of start and end logits (B, T, 2)."""
        from compressor_plugins.tasks import _spans

        return _spans.output(raw, batch["window"], self.max_length)

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the start's and the end's cross entropy, shape (B,)."""
        from compressor_plugins.tasks import _spans

        return _spans.sample_losses(z, batch["labels"])

    def divergences(self, z: Tensor, dense: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return ``temperature**2`` times the mean of the start's and the end's KL, shape (B,)."""
        from compressor_plugins.tasks import _spans

        return _spans.divergences(z, dense, temperature)

    def curvature(
        self, z: Tensor, *, temperature: float = 1.0, draws: int = 1, generator: np.random.Generator
    ) -> Tensor:
        """Return scaled log-probabilities of starts and ends drawn from the model, shape (B, 2 * draws)."""
        from compressor_plugins.tasks import _spans

        return _spans.curvature(z, generator.random((len(z), 2, draws)), temperature=temperature)

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for the positions that z reads and 0 for the others, shape (B, T)."""
        from compressor_plugins.tasks import _spans

        mask = batch["attention_mask"]
        return _spans.allowed(batch["window"], mask.shape[1]).to(mask.dtype)

    def rows(
        self,
        outputs: np.ndarray,
        dense: np.ndarray,  # noqa: ARG002 - the contract's; answers are compared with the gold ones
        samples: Sequence[Mapping[str, Any]],
    ) -> Mapping[str, np.ndarray]:
        """Return of every question the answer (``predictions``), ``f1``, ``exact_match`` and ``correct``, each (m,)."""
        from compressor_plugins.tasks import _answers

        threshold = self.null_score_threshold if self.version == "2.0" else None
        return _answers.table(outputs, samples, _answers.Search(self.n_best, self.max_answer_length, threshold))

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the means of ``f1`` and ``exact_match``, fractions of 1."""
        return {name: float(rows[name].mean()) for name in ("f1", "exact_match")}


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``squad``."""
    yield Squad
