"""From tags of words to entities, and from both to one row of figures per example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from compressor_plugins.tasks._tokens import IGNORED

Entity = tuple[str, int, int]
COUNTS = ("words", "right", "hits", "found", "gold")


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities in a sequence of tags: type, first word, last word.

    As ``conlleval`` reads them: ``B-`` and ``S-`` begin an entity, and so does ``I-`` or ``E-`` behind another type, behind
    ``O``, and behind the end of an entity; ``E-`` and ``S-`` end one.
    """
    found: set[Entity] = set()
    begun: int | None = None
    last_prefix, last_type = "O", ""
    for number, tag in enumerate((*tags, "O")):
        prefix, _, kind = tag.partition("-")
        goes_on = begun is not None and prefix in "IE" and kind == last_type and last_prefix in "BI"
        if begun is not None and not goes_on:
            found.add((last_type, begun, number - 1))
            begun = None
        if begun is None and prefix != "O":
            begun = number
        last_prefix, last_type = prefix, kind
    return found


def table(outputs: np.ndarray, samples: Sequence[Mapping[str, Any]], *, spans: bool) -> dict[str, np.ndarray]:
    """Return one row per example: how many words and entities there are, and how many of them are right.

    Args:
        outputs: z, shape (n, L, C).
        samples: their rows: ``example``, ``labels`` (L,), and ``names``, the tags by id.
        spans: count entities.

    Returns:
        Columns of shape (m,): the counts ``words``, ``right`` and, of entities, ``hits``, ``found`` and ``gold``;
        ``predictions``, all tags of the example in one text, and ``correct``, whether all of them are right.
    """
    rows = []
    pairs = zip(outputs.argmax(axis=2), samples, strict=True)
    for _, parts in groupby(pairs, key=lambda pair: pair[1]["example"]):
        predicted, labels, names = _joined(parts)
        counts = [len(labels), int((predicted == labels).sum())]
        tags, gold_tags = ([names[number] for number in ids] for ids in (predicted, labels))
        found, gold = (entities(one) if spans else set() for one in (tags, gold_tags))
        rows.append(([*counts, len(found & gold), len(found), len(gold)], " ".join(tags), counts[0] == counts[1]))
    counted, predictions, correct = zip(*rows, strict=True)
    columns = dict(zip(COUNTS, np.array(counted).T, strict=True))
    return columns | {"predictions": np.array(predictions), "correct": np.array(correct)}


def _joined(parts: Iterable[tuple[np.ndarray, Mapping[str, Any]]]) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Return the words' predicted ids and labels, (W,) each, of the parts that an example is cut into."""
    predicted, labels = [], []
    names: Sequence[str] = ()
    for ids, sample in parts:
        gold = np.array(sample["labels"])
        words = gold != IGNORED
        predicted.append(ids[words])
        labels.append(gold[words])
        names = sample["names"]
    return np.concatenate(predicted), np.concatenate(labels), names


def figures(rows: Mapping[str, np.ndarray], *, spans: bool) -> dict[str, float]:
    """Return ``accuracy`` of words and, with ``spans``, ``f1``, ``precision`` and ``recall`` of entities (0 where none are)."""
    words, right, hits, found, gold = (float(rows[name].sum()) for name in COUNTS)
    accuracy = {"accuracy": right / words}
    if not spans:
        return accuracy
    return {
        "f1": 2 * hits / max(found + gold, 1.0),
        "precision": hits / max(found, 1.0),
        "recall": hits / max(gold, 1.0),
        **accuracy,
    }
