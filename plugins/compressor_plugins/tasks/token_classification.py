"""A tag for every word: named entities, personal data, parts of speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import Head, Split
from compressor_plugins.paths import TAGGED, TaggedFile
from compressor_plugins.tasks._named_classes import NamedClasses
from compressor_plugins.tasks._own_rows import OwnRows

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component
    from compressor_plugins.tasks._classes import Classes


class TokenClassification(NamedClasses, OwnRows):
    """Tagged words, from files or a data set (IOB2 tags: Tjong Kim Sang and Veenstra 1999, https://arxiv.org/abs/cs/9907006).

    A word's first sub-word carries its tag; the others and padding count nowhere. Metrics: ``f1`` of entities, which
    gates compare, ``precision``, ``recall``, an entity being right when its type and both its ends are, and ``accuracy``
    of words; without ``entities`` only the last. Text beyond ``max_length`` is cut into parts, so no word is lost.
    Verification draws whole rows; a row's prediction counts as changed where any of its tags did.

    z is ``(B, max_length, C)``, -10000 where there is no word. Losses and divergences are means over a row's words.
    """

    name: ClassVar[str] = "token-classification"
    head: ClassVar[Head] = "token-classification"
    label_option: ClassVar[str] = "tags"

    train: TaggedFile | None = Field(
        default=None,
        description="File with calibration rows: json, jsonl or parquet with lists, or conll, iob, bio or txt with a "
        "word and its tag per line.",
    )
    validation: TaggedFile | None = Field(default=None, description="File with the rows the metric is computed on.")
    tokens: str = Field(default="tokens", description="Column of the lists of words.")
    tags: str = Field(default="tags", description="Column of the lists of tags: names, or the checkpoint's ids.")
    entities: bool = Field(
        default=True, description="Tags are those of entities (O, B-PER, I-PER); false: any, such as parts of speech."
    )

    @property
    def metric(self) -> str:
        """F1 of entities, or accuracy of words."""
        return "f1" if self.entities else "accuracy"

    def columns(self, split: Split) -> Mapping[str, str]:  # noqa: ARG002 - the same of both
        """Return those of words and tags."""
        return {"tokens": self.tokens, "tags": self.tags}

    def read(self, split: Split) -> tuple[Dataset, str]:
        """Return a split's rows; raises what ``OwnRows.read`` does."""
        from compressor_plugins.tasks import _tagged

        path = self.train if split == "train" else self.validation
        if path is None or path.suffix not in TAGGED:
            return super().read(split)
        return _tagged.read_columns(path, (self.tokens, self.tags)), str(path)

    def judge(self, values: Sequence[Any], classes: Classes) -> None:
        """Check lists of tags."""
        classes.ids([tag for value in values for tag in (value if isinstance(value, list) else [value])])

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return the split's tokenised rows.

        Raises:
            InputError: they cannot be read, a column is absent, a tag is unknown, or the tokenizer does not serve.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _tagged

        rows, source = self.read(split)
        words, tags = _tagged.words_and_tags(rows, (self.tokens, self.tags), source=source)
        classes = self.classes(rows, self.tags, label2id=label2id, source=source)
        ids = iter(classes.ids(list(chain.from_iterable(tags))))
        labels = [[next(ids) for _ in row] for row in tags]
        if self.entities:
            _tagged.check_entity_tags(classes.by_id, source=source)
        return _tagged.aligned(
            words,
            labels,
            tokenizer=tokenizer,
            max_length=self.max_length,
            names=classes.by_id if split == "validation" else None,
        )

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return z (B, max_length, C) of the logits of tokens (B, T, C)."""
        from compressor_plugins.tasks import _tokens

        return _tokens.output(raw, batch["labels"])

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross entropy of a row's words, shape (B,)."""
        from compressor_plugins.tasks import _tokens

        return _tokens.sample_losses(z, batch["labels"])

    def divergences(self, z: Tensor, dense: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return ``temperature**2`` times the mean KL of a row's words, shape (B,)."""
        from compressor_plugins.tasks import _tokens

        return _tokens.divergences(z, dense, temperature)

    def curvature(
        self, z: Tensor, *, temperature: float = 1.0, draws: int = 1, generator: np.random.Generator
    ) -> Tensor:
        """Return sums, with random signs, of the scalars of all words, shape (B, draws)."""
        from compressor_plugins.tasks import _tokens

        columns = super().curvature(z.flatten(0, 1), temperature=temperature, generator=generator)
        return _tokens.projected(columns, _tokens.words_of(z).sum(dim=1), draws=draws, generator=generator)

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for the first sub-words and 0 for the others, shape (B, T)."""
        from compressor_plugins.tasks import _tokens

        mask = batch["attention_mask"]
        return (batch["labels"][:, : mask.shape[1]] != _tokens.IGNORED).to(mask.dtype)

    def rows(
        self,
        outputs: np.ndarray,
        dense: np.ndarray,  # noqa: ARG002 - the contract's; tags are compared with the gold ones
        samples: Sequence[Mapping[str, Any]],
    ) -> Mapping[str, np.ndarray]:
        """Return, of every row as it was before cutting, counts of words and entities, all its tags, and if all are right."""
        from compressor_plugins.tasks import _entities

        return _entities.table(outputs, samples, spans=self.entities)

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return ``f1``, ``precision`` and ``recall`` of entities, and ``accuracy`` of words."""
        from compressor_plugins.tasks import _entities

        return _entities.figures(rows, spans=self.entities)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``token-classification``."""
    yield TokenClassification
