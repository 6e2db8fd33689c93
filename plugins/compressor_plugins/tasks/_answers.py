"""From logits to answers, and from answers to scores, as SQuAD's own evaluation defines them."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
Part = tuple[np.ndarray, Mapping[str, Any]]
"""z of one window, shape (2, L), and its row."""


@dataclass(frozen=True)
class Search:
    """How an answer is chosen.

    Attributes:
        n_best: starts and ends of every window that are paired.
        longest: tokens of the longest answer.
        null_threshold: no answer where its score exceeds the best answer's by more; None = there always is one.
    """

    n_best: int
    longest: int
    null_threshold: float | None


def table(outputs: np.ndarray, samples: Sequence[Mapping[str, Any]], search: Search) -> dict[str, np.ndarray]:
    """Return ``predictions``, ``f1``, ``exact_match`` and ``correct`` of every question, each (m,).

    Args:
        outputs: z of every window, shape (n, 2, L).
        samples: its row: ``window``, ``starts``, ``ends``, ``context``, ``answers``, and the question's ``example``.
        search: how answers are chosen.
    """
    questions: dict[int, list[Part]] = {}
    for z, sample in zip(outputs, samples, strict=True):
        questions.setdefault(sample["example"], []).append((z, sample))
    predictions = [answer(parts, search) for parts in questions.values()]
    golds = [parts[0][1]["answers"] for parts in questions.values()]
    scores = np.array([score(found, gold) for found, gold in zip(predictions, golds, strict=True)])
    return {
        "predictions": np.array(predictions, dtype=object),
        "exact_match": scores[:, 0],
        "f1": scores[:, 1],
        "correct": scores[:, 0] == 1.0,
    }


def answer(parts: Sequence[Part], search: Search) -> str:
    """Return the best span's text over all windows of a question; "" is no answer."""
    best, text = -math.inf, ""
    for z, sample in parts:
        first, last = sample["window"]
        value, start, end = best_span(z[0, first : last + 1], z[1, first : last + 1], search)
        if value > best:
            best, text = value, sample["context"][sample["starts"][start] : sample["ends"][end]]
    null = min(float(z[0, 0] + z[1, 0]) for z, _ in parts)
    none = search.null_threshold is not None and null - best > search.null_threshold
    return "" if none else text


def best_span(starts: np.ndarray, ends: np.ndarray, search: Search) -> tuple[float, int, int]:
    """Return the highest sum of a start and an end logit, both (n,), and its positions; -inf where no pair is a span."""
    first, last = (np.argsort(-logits, kind="stable")[: search.n_best] for logits in (starts, ends))
    length = last[None, :] - first[:, None] + 1
    sums = np.where((length >= 1) & (length <= search.longest), starts[first][:, None] + ends[last][None, :], -math.inf)
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return float(sums[row, column]), int(first[row]), int(last[column])


def score(found: str, golds: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1, the best over the gold answers; without any, "no answer" is the right one.

    As SQuAD 2.0's evaluation has it; 1.1's differs where a gold answer is nothing but articles and punctuation.
    """
    answers = [gold for gold in golds if words(gold)] or [""]
    return max(float(words(found) == words(gold)) for gold in answers), max(f1(found, gold) for gold in answers)


def words(text: str) -> list[str]:
    """Return an answer's words in lower case, without punctuation and articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def f1(found: str, gold: str) -> float:
    """Return F1 of the words, counted with repeats; of no words at all, whether both are empty."""
    ours, theirs = words(found), words(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2.0 * common / (len(ours) + len(theirs))
