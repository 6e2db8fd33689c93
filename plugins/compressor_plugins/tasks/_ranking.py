"""Queries with candidate documents, and what scores make of their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from datasets import Dataset

from compressor.errors import InputError
from compressor_plugins.tasks import _files
from compressor_plugins.tasks._metrics import METRICS

FIRST = 10
"""Documents that nDCG looks at."""


@dataclass(frozen=True)
class Pairs:
    """Queries and documents, pair by pair.

    Attributes:
        queries: of every pair.
        documents: the same.
        numbers: which query a pair is of.
        relevance: of every pair, or None.
    """

    queries: list[str]
    documents: list[str]
    numbers: list[int]
    relevance: list[float] | None


def check_outputs(label2id: Mapping[str, int] | None) -> None:
    """Check that the checkpoint gives a score.

    Raises:
        InputError: it has more than two outputs.
    """
    if label2id and len(label2id) > 2:  # noqa: PLR2004 - one score, or no and yes
        raise InputError(
            f"wrong task for this checkpoint: task 'reranking' needs one output or two classes, config.json has "
            f"{len(label2id)}: {', '.join(label2id)}",
            hint="give a cross-encoder with -m, or choose the task that the checkpoint was tuned for",
        )


def pairs(rows: Dataset, columns: tuple[str, str, str | None], *, source: str, judgements_needed: bool) -> Pairs:
    """Return the pairs of every query that has two documents or more.

    Args:
        rows: as they were read.
        columns: of the query, its documents and, where it is looked for, the relevance.
        source: where the rows come from, for messages.
        judgements_needed: the relevance must be there.

    Raises:
        InputError: a column is absent or is not lists of one length, or no query has two documents.
    """
    query, documents, relevance = columns
    queries = _files.texts(rows, query, source=source, option="query")
    lists = _files.column(rows, documents, source=source, option="documents")
    candidates = [_listed(value, str, documents, f"{source}: row {n}") for n, value in enumerate(lists, 1)]
    judged = relevance is not None and (judgements_needed or relevance in rows.column_names)
    grades: list[list[Any]] = [[0.0] * len(texts) for texts in candidates]
    if judged and relevance is not None:
        values = _files.column(rows, relevance, source=source, option="relevance")
        grades = [_listed(value, int | float, relevance, f"{source}: row {n}") for n, value in enumerate(values, 1)]
    for number, (texts, given) in enumerate(zip(candidates, grades, strict=True), 1):
        if len(texts) != len(given):
            raise InputError(f"{source}: row {number}: {len(texts)} documents and {len(given)} judgements")
    kept = [number for number, texts in enumerate(candidates) if len(texts) > 1]
    if not kept:
        raise InputError(f"{source}: no query has two documents, so there is nothing to rank")
    return Pairs(
        queries=[queries[number] for number in kept for _ in candidates[number]],
        documents=[text for number in kept for text in candidates[number]],
        numbers=[number for number in kept for _ in candidates[number]],
        relevance=[float(grade) for number in kept for grade in grades[number]] if judged else None,
    )


def _listed(value: Any, kind: Any, column: str, place: str) -> list[Any]:
    if isinstance(value, list) and all(isinstance(item, kind) for item in value):
        return value
    words = "texts" if kind is str else "numbers"
    raise InputError(
        f"{place}: expected a list of {words} in '{column}'; got {str(value)[:60]!r}",
        hint="give json, jsonl or parquet rows: one query with all its documents each",
    )


def numbered(tokenised: Dataset, pairs: Pairs) -> Dataset:
    """Return the rows with the columns ``example`` and, where there are judgements, ``relevance``."""
    rows = tokenised.add_column("example", pairs.numbers)
    return rows if pairs.relevance is None else rows.add_column("relevance", pairs.relevance)


def table(scores: np.ndarray, dense: np.ndarray, samples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return one row per query: how its scores (n,) agree with the dense ones, and what they make of its judgements."""
    found: dict[str, list[float]] = {}
    for _, group in groupby(range(len(samples)), key=lambda number: samples[number]["example"]):
        numbers = list(group)
        ours, theirs = scores[numbers], dense[numbers]
        figures = {name: _agreement(name, ours, theirs) for name in ("spearman", "pearson")}
        if "relevance" in samples[0]:
            grades = np.array([samples[number]["relevance"] for number in numbers])
            figures |= {"ndcg": ndcg(ours, grades), "mrr": reciprocal_rank(ours, grades)}
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def _agreement(name: str, scores: np.ndarray, dense: np.ndarray) -> float:
    return 1.0 if np.array_equal(scores, dense) else METRICS[name](scores, dense)


def ndcg(scores: np.ndarray, relevance: np.ndarray) -> float:
    """Return nDCG of the first ten documents, of scores and gains (d,); 0 where nothing is relevant."""
    discounts = 1 / np.log2(np.arange(len(scores))[:FIRST] + 2)
    best = float(np.sort(relevance)[::-1][:FIRST] @ discounts)
    return float(relevance[_order(scores)][:FIRST] @ discounts) / best if best > 0 else 0.0


def reciprocal_rank(scores: np.ndarray, relevance: np.ndarray) -> float:
    """Return one over the rank of the first document with a relevance above 0; 0 where there is none."""
    ranks = np.flatnonzero(relevance[_order(scores)] > 0)
    return 1 / (int(ranks[0]) + 1) if len(ranks) else 0.0


def _order(scores: np.ndarray) -> np.ndarray:
    """Return the documents from the best; of equal ones the first in the list comes first."""
    return np.argsort(-scores, kind="stable")
