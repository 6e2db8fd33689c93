"""Vocabulary trimming: leave out the tokens that a corpus does not have, and the positions that are never read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl
from compressor_plugins.paths import TextFile

if TYPE_CHECKING:
    from compressor.run.session import Session


_PATHS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "default": []}


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


class Vocabulary(PruningMethod):
    """Keep the tokens that texts have, and rewrite embeddings and tokenizer together. Nothing else of the model changes.

    Abdaoui, Pradel and Sigel, "Load What You Need: Smaller Versions of Multilingual BERT", 2020,
    https://arxiv.org/abs/2010.05609. Text whose tokens all stay is cut and answered exactly as before; other text is cut
    into smaller pieces of what is left, or has unknown words: the report says how many of the validation rows are cut
    into the same tokens. Special and added tokens, bytes, and what a token is made of always stay.

    The tokenizer must be a fast one (WordPiece, BPE, Unigram or whole words). It makes files and memory smaller, not
    computation. Without masks of other methods what is left is a plain checkpoint.
    """

    name: ClassVar[str] = "vocabulary"

    corpus: Annotated[tuple[TextFile, ...], BeforeValidator(_tuple), WithJsonSchema(_PATHS)] = Field(
        default=(),
        description="Files whose tokens stay beside those of the task's train rows, one or several: .txt with a text per line, "
        "or csv, tsv, json, jsonl and parquet, of which all columns of text are read.",
    )
    min_count: int = Field(
        default=1, ge=1, description="How often train rows and corpus together must have a token for it to stay."
    )
    target: Target | None = Field(
        default=None,
        description="Fraction of the tokens to keep at most, the most frequent ones, e.g. {vocabulary: 0.3}; default: all "
        "that are frequent enough.",
    )
    keep: tuple[str, ...] | TextFile = Field(
        default=(),
        description="Tokens, or texts whose tokens stay, however rare: a list, or a .txt file with one a line.",
    )
    keep_alphabet: bool = Field(
        default=True, description="Keep all single characters, so that hardly any word becomes unknown."
    )
    tokens: bool = Field(default=True, description="Trim the vocabulary; false trims positions alone.")
    positions: int | None = Field(
        default=None, ge=4, description="Tokens of the longest sequence that is served; default: as many as before."
    )

    @field_validator("target")
    @classmethod
    def _of_tokens(cls, target: Target | None) -> Target | None:
        if target is not None and target.amount != "vocabulary":
            message = f"vocabulary takes target.vocabulary; got target.{target.amount}"
            raise ValueError(message)
        return target

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        longest = getattr((info.context or {}).get("task"), "max_length", None)
        if self.positions is not None and longest is not None and longest > self.positions:
            message = f"positions: expected at least task.max_length, {longest}; got {self.positions}"
            raise ValueError(message)
        if not self.tokens and self.positions is None:
            message = "expected positions where tokens is false: nothing would be trimmed"
            raise ValueError(message)
        return self

    @property
    def reads_texts(self) -> bool:
        """It counts the tokens of the train rows, and rewrites the tokenizer."""
        return True

    @property
    def files(self) -> tuple[Path, ...]:
        """The corpus, and the list of what stays."""
        return (*self.corpus, self.keep) if isinstance(self.keep, Path) else self.corpus

    @property
    def longest(self) -> int | None:
        """The positions that stay."""
        return self.positions

    def check_texts(self, session: Session, *, first: bool) -> None:
        """Refuse a tokenizer or a model that cannot be trimmed, and a target that special tokens alone exceed."""
        from compressor_plugins.methods._vocabulary import check

        check(self, session, first=first)

    def prune(self, session: Session) -> Pruned:
        """Return the tokens that stay and the tokenizer of these."""
        from compressor_plugins.methods._vocabulary import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Vocabulary
