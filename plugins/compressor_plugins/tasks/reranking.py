"""Cross-encoders that score documents for a query, with or without judgements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import Head, Split
from compressor_plugins.tasks._own_rows import OwnRows

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component


class Reranking(OwnRows):
    """Candidate documents of a query, scored as pairs (Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085).

    A row has a ``query`` and its ``documents``, a list, and may have ``relevance``, a number per document; queries with
    fewer than two documents are left out. No labels are needed: ``spearman`` and ``pearson`` are the mean over queries of
    the correlation of a query's scores with the dense model's. With judgements there are ``ndcg``, over the first ten with
    the relevance as gain (Järvelin and Kekäläinen 2002), and ``mrr``, the reciprocal rank of the first document of a
    relevance above 0. Verification draws whole queries.

    z is the score ``(B, 1)``: the checkpoint's one output, or of two classes the second's logit less the first's.
    """

    name: ClassVar[str] = "reranking"
    head: ClassVar[Head] = "sequence-classification"
    label_free: ClassVar[bool] = True

    query: str = Field(default="query", description="Column of the query.")
    documents: str = Field(default="documents", description="Column of the list of candidate documents.")
    relevance: str = Field(default="relevance", description="Column of the list of judgements, where there is one.")
    gated: Literal["spearman", "pearson", "ndcg", "mrr"] = Field(
        default="spearman", description="Metric that gates compare; ndcg and mrr need judgements."
    )

    @property
    def metric(self) -> str:
        """The one that is ``gated``."""
        return self.gated

    @property
    def pairs(self) -> bool:
        """A query and a document."""
        return True

    def columns(self, split: Split) -> Mapping[str, str]:
        """Return those of the query, its documents and, where the metric needs them, the judgements."""
        judged = split == "validation" and self.gated in {"ndcg", "mrr"}
        relevance = {"relevance": self.relevance} if judged else {}
        return {"query": self.query, "documents": self.documents, **relevance}

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return a tokenised row for every query and document; those of a query have its number as ``example``.

        Raises:
            InputError: the rows cannot be read, a column is absent or is not lists, or the checkpoint has three outputs.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _files, _ranking

        _ranking.check_outputs(label2id)
        rows, source = self.read(split)
        judged = split == "validation"
        needed = judged and self.gated in {"ndcg", "mrr"}
        columns = (self.query, self.documents, self.relevance if judged else None)
        pairs = _ranking.pairs(rows, columns, source=source, judgements_needed=needed)
        tokenised = _files.tokenise(pairs.queries, pairs.documents, tokenizer=tokenizer, max_length=self.max_length)
        return _ranking.numbered(tokenised, pairs)

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002 - the contract's
        """Return the score (B, 1) of logits (B, 1) or (B, 2)."""
        return raw if raw.shape[1] == 1 else raw[:, 1:] - raw[:, :1]

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for the first token and 0 for the others, shape (B, T)."""
        from compressor_plugins.tasks._classification import first_token

        return first_token(batch)

    def rows(
        self, outputs: np.ndarray, dense: np.ndarray, samples: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, np.ndarray]:
        """Return every query's ``spearman``, ``pearson`` and, where it is judged, ``ndcg`` and ``mrr``, each (m,)."""
        from compressor_plugins.tasks import _ranking

        return _ranking.table(outputs[:, 0], dense[:, 0], samples)

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the mean of every column."""
        return {name: float(values.mean()) for name, values in rows.items()}


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``reranking``."""
    yield Reranking
