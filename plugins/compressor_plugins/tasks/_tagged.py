"""From files of tagged words to tokenised rows: the first sub-word of a word carries its label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from compressor.errors import InputError
from compressor.model.outputs import INPUTS
from compressor_plugins.tasks import _files
from compressor_plugins.tasks._tokens import IGNORED

ENTITY_TAG = re.compile(r"O|[BIES]-.+")
UNNAMED = re.compile(r"label_\d+", re.IGNORECASE)


def read_columns(path: Path, columns: tuple[str, str]) -> Dataset:
    """Return two columns, of words and of tags, of a text file with a word and its tag per line, sentences apart by an empty line.

    Of more columns the first and the last count, as in CoNLL-2003's files, whose ``-DOCSTART-`` lines are left out.

    Raises:
        InputError: it is not UTF-8, a line has one column, or there are no words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected UTF-8 text, a word and its tag per line: {error}") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if not line.startswith("-DOCSTART-")]
    for number, parts in rows:
        if len(parts) == 1:
            raise InputError(f"{path}: line {number}: expected a word and its tag, got {parts[0]!r}")
    sentences = [[(parts[0], parts[-1]) for _, parts in group] for words, group in groupby(rows, _has_words) if words]
    if not sentences:
        raise InputError(f"{path}: the file has no words")
    pairs = zip(columns, zip(*(zip(*sentence, strict=True) for sentence in sentences), strict=True), strict=True)
    return Dataset.from_dict({name: [list(values) for values in lists] for name, lists in pairs})


def _has_words(row: tuple[int, list[str]]) -> bool:
    return bool(row[1])


def words_and_tags(rows: Dataset, columns: tuple[str, str], *, source: str) -> tuple[list[list[str]], list[list[Any]]]:
    """Return every row's words and tags; raises ``InputError`` where a row is not two lists of one length."""
    words, tags = (
        _files.column(rows, name, source=source, option=option)
        for name, option in zip(columns, ("tokens", "tags"), strict=True)
    )
    for number, (some, their) in enumerate(zip(words, tags, strict=True), 1):
        if not (isinstance(some, list) and isinstance(their, list) and all(isinstance(word, str) for word in some)):
            raise InputError(
                f"{source}: row {number}: expected a list of words in '{columns[0]}' and a list of tags in "
                f"'{columns[1]}'; got {str(some)[:40]!r} and {str(their)[:40]!r}",
                hint="give jsonl or parquet rows with lists, or a text file with a word and its tag per line",
            )
        if len(some) != len(their):
            raise InputError(f"{source}: row {number}: {len(some)} words and {len(their)} tags")
    return words, tags


def check_entity_tags(names: Sequence[str], *, source: str) -> None:
    """Check that all tags are like ``O``, ``B-PER`` and ``I-PER``.

    Raises:
        InputError: one is not; says what to do.
    """
    other = next((name for name in names if not ENTITY_TAG.fullmatch(name)), None)
    if other is not None:
        raise InputError(
            f"{source}: tag '{other}': expected entity tags such as O, B-PER and I-PER; got {', '.join(names)}",
            hint="list the tags in the order of the checkpoint's ids in the task's option 'labels'"
            if UNNAMED.fullmatch(other)
            else "set task.entities to false: the metric is then the accuracy of words",
        )


def aligned(
    words: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    names: Sequence[str] | None = None,
) -> Dataset:
    """Return tokenised rows with ``example`` and ``labels`` (L,), L the tokens that a row may have.

    Words are joined by spaces, as they come in plain text. A row that is too long is cut into parts of one ``example``.
    A word without tokens, and a part without words, is left out.

    Args:
        words: of every row.
        labels: their class ids.
        tokenizer: a fast one that pads on the right.
        max_length: tokens of a row.
        names: of the tags; where given, the rows have the column ``names`` too.

    Raises:
        InputError: the tokenizer does not serve.
    """
    if not tokenizer.is_fast or tokenizer.padding_side != "right":
        raise InputError(
            f"task 'token-classification': expected a fast tokenizer that pads on the right; got "
            f"{type(tokenizer).__name__}, padding_side {tokenizer.padding_side}"
        )
    length = min(max_length, tokenizer.model_max_length)

    def encode(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        encoded: Any = tokenizer(
            [" ".join(row) for row in batch["words"]],
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        found: dict[str, list[Any]] = {name: [] for name in INPUTS if name in encoded}
        found |= {"labels": [], "example": []} | ({"names": []} if names else {})
        seen: dict[int, set[int]] = {}
        for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
            places = _places(batch["words"][row])
            firsts = _first_tokens(encoded["offset_mapping"][number], places, seen.setdefault(row, set()))
            if not any(word is not None for word in firsts):
                continue
            ids = [IGNORED if word is None else batch["labels"][row][word] for word in firsts]
            values = {"labels": ids + [IGNORED] * (length - len(ids)), "example": batch["example"][row], "names": names}
            for name, column in found.items():
                column.append(values[name] if name in values else encoded[name][number])
        return found

    rows = {"words": list(words), "labels": list(labels), "example": list(range(len(words)))}
    return _files.mapped(Dataset.from_dict(rows), encode)


def _places(words: Sequence[str]) -> list[int | None]:
    """Return which word every character of the words, joined by spaces, belongs to."""
    found: list[int | None] = []
    for number, word in enumerate(words):
        found += [number] * len(word) + [None]
    return found


def _first_tokens(offsets: Sequence[tuple[int, int]], places: Sequence[int | None], seen: set[int]) -> list[int | None]:
    """Return the word of every token that is the first of it, by the token's last character; adds them to ``seen``."""
    firsts: list[int | None] = []
    for start, end in offsets:
        word = places[end - 1] if end > start else None
        firsts.append(None if word in seen else word)
        if word is not None:
            seen.add(word)
    return firsts
