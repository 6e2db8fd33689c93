"""Text embedding without labels: the compressed model is measured by its fidelity to the dense one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compressor.errors import InputError
from compressor.plugin import Glance, hookimpl
from compressor.plugin.components import Head, Split
from compressor_plugins.paths import TextFile
from compressor_plugins.tasks._dataset import DatasetRows

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component

NEIGHBORS = 10


class Embedding(DatasetRows):
    """Sentence embeddings on any text: a file of your own, or the text that ships with Python.

    Metrics, all 1 for the dense model itself: ``cosine``, the mean cosine between a text's compressed and dense
    embedding, which gates compare; ``cosine_p05``, its 5th percentile; ``neighbor_agreement``, the share of a text's
    ten nearest neighbours among the held-out texts that both models agree on, which is what search sees.
    """

    name: ClassVar[str] = "embedding"
    head: ClassVar[Head] = "feature-extraction"
    label_free: ClassVar[bool] = True

    corpus: Literal["python-docs"] | None = Field(
        default=None, description="Built-in text: the language reference and docstrings that ship with Python."
    )
    train: TextFile | None = Field(
        default=None, description="File with calibration texts: txt (one a line), csv, tsv, json, jsonl or parquet."
    )
    validation: TextFile | None = Field(
        default=None, description="File with held-out texts; default: a fifth of the others, chosen by hash."
    )
    text: str = Field(default="text", description="Column of the text, in files that have columns.")
    pooling: Literal["mean", "cls", "max"] = Field(
        default="mean",
        description="How token vectors become one: their mean, the first, or the largest of each coordinate.",
    )
    normalize: bool = Field(default=True, description="Scale embeddings to length 1, as cosine search does.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.corpus, self.train, self.dataset].count(None) != 2:  # noqa: PLR2004 - the two that are not given
            message = "expected texts from exactly one of 'train' (a file), 'dataset' and 'corpus' (python-docs)"
            raise ValueError(message)
        if self.dataset is not None and self.validation is not None:
            message = "the dataset has a split of held-out texts: expected no file 'validation' beside it"
            raise ValueError(message)
        return self

    @property
    def metric(self) -> str:
        """Mean cosine to the dense embeddings."""
        return "cosine"

    def load(
        self,
        split: Split,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label2id: Mapping[str, int] | None = None,  # noqa: ARG002 - the contract's; there are no labels
    ) -> Dataset:
        """Return the split's tokenised texts.

        Raises:
            InputError: a file cannot be read, or there are too few held-out texts to have ten neighbours.
        """
        from compressor_plugins.tasks import _files

        texts = self._texts(split)
        if split == "validation" and len(texts) <= NEIGHBORS:
            raise InputError(
                f"task 'embedding': {len(texts)} held-out texts; neighbor_agreement needs more than {NEIGHBORS}",
                hint="give a larger file, or one of its own in task.validation",
            )
        return _files.tokenise(texts, tokenizer=tokenizer, max_length=self.max_length)

    def glance(self, split: Split, *, label2id: Mapping[str, int] | None = None) -> Glance:  # noqa: ARG002 - no labels
        """Return what is wrong with a split's file; a data set is not looked at."""
        from compressor_plugins.tasks import _glance

        path = (split == "validation" and self.validation) or self.train
        wanted = _glance.Wanted([("text", self.text)], counted=False)
        return _glance.look(path, wanted, option=split if self.validation else "train") if path else Glance()

    def _texts(self, split: Split) -> list[str]:
        from compressor_plugins.tasks import _files, _hub
        from compressor_plugins.tasks._embedding import hold_out, read_texts
        from compressor_plugins.tasks._python_docs import paragraphs

        if self.dataset is not None:
            rows, source = _hub.read(self.dataset, split)
            return [text for text in _files.texts(rows, self.text, source=source, option="text") if text.strip()]
        if split == "validation" and self.validation is not None:
            return read_texts(self.validation, self.text)
        texts = list(paragraphs()) if self.train is None else read_texts(self.train, self.text)
        return texts if self.validation is not None else hold_out(texts, held=split == "validation")

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings (B, D) of the last hidden state (B, T, D)."""
        from compressor.model.sentences import pool

        return pool(raw, batch["attention_mask"], pooling=self.pooling, normalize=self.normalize)

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the padding mask (B, T) when tokens are averaged, or 1 for the first token alone."""
        mask = batch["attention_mask"].clone()
        if self.pooling == "cls":
            mask[:, 1:] = 0
        return mask

    def rows(
        self,
        outputs: np.ndarray,
        dense: np.ndarray,
        samples: Sequence[Mapping[str, Any]],  # noqa: ARG002 - the contract's; the outputs say it all
    ) -> Mapping[str, np.ndarray]:
        """Return each text's cosine to its dense embedding and its share of kept neighbours, both (n,)."""
        from compressor_plugins.tasks._embedding import cosine, neighbor_agreement

        agreement = neighbor_agreement(outputs, dense, min(NEIGHBORS, len(dense) - 1))
        return {"cosine": cosine(outputs, dense), "neighbor_agreement": agreement}

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return ``cosine``, ``cosine_p05`` and ``neighbor_agreement``."""
        import numpy as np

        return {
            "cosine": float(np.mean(rows["cosine"])),
            "cosine_p05": float(np.percentile(rows["cosine"], 5)),
            "neighbor_agreement": float(np.mean(rows["neighbor_agreement"])),
        }


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``embedding``."""
    yield Embedding
