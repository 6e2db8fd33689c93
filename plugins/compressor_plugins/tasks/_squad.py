"""From SQuAD's rows to tokenised windows: a question, and as much of its context as fits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from compressor.errors import InputError
from compressor.model.outputs import INPUTS
from compressor_plugins.tasks import _files

if TYPE_CHECKING:
    from compressor_plugins.tasks.squad import Squad

MISPLACED = 0.01
"""Share of answers that may stand elsewhere in the context than the data say; more is another way of counting."""


def questions(rows: Dataset, *, source: str, unanswerable: bool) -> Dataset:
    """Return ``example``, ``question``, ``context``, ``answers`` (texts) and ``span``, characters, [] for no answer.

    Raises:
        InputError: a column is missing or is not as SQuAD has it; names ``source`` and the row.
    """
    asked, contexts = (_files.texts(rows, name, source=source, option="path") for name in ("question", "context"))
    golds = [
        _golds(value, f"{source}: row {number}", unanswerable=unanswerable)
        for number, value in enumerate(_files.column(rows, "answers", source=source, option="path"), 1)
    ]
    off = [
        number
        for number, (context, (texts, starts)) in enumerate(zip(contexts, golds, strict=True))
        if texts and context[starts[0] :][: len(texts[0])] != texts[0]
    ]
    if len(off) > MISPLACED * len(golds):
        texts, starts = golds[off[0]]
        raise InputError(
            f"{source}: {len(off)} answers are not where answer_start says: row {off[0] + 1}: '{texts[0]}' is not at "
            f"character {starts[0]} of its context",
            hint="answer_start counts characters (not bytes or words) of the context, from 0",
        )
    return Dataset.from_dict(
        {
            "example": list(range(len(asked))),
            "question": [text.strip() for text in asked],  # some begin with lines of spaces, which can be tokens
            "context": contexts,
            "answers": [texts for texts, _ in golds],
            "span": [_span(texts[0], starts[0]) if texts else [] for texts, starts in golds],
        }
    )


def _golds(value: Any, place: str, *, unanswerable: bool) -> tuple[list[str], list[int]]:
    keys = ("text", "answer_start")
    texts, starts = (list(value.get(key) or ()) for key in keys) if isinstance(value, Mapping) else ((), ())
    fits = isinstance(value, Mapping) and set(keys) <= value.keys() and len(texts) == len(starts)
    if not fits or not all(isinstance(text, str) for text in texts) or not all(isinstance(at, int) for at in starts):
        raise InputError(f"{place}: expected answers {{text: [...], answer_start: [...]}}; got {str(value)[:80]}")
    if not texts and not unanswerable:
        raise InputError(
            f"{place}: the question has no answer", hint="set task.version to 2.0, or use a split with answers"
        )
    return list(texts), list(starts)


def _span(text: str, start: int) -> list[int]:
    """Return the first character and the one behind the last, of the answer without the spaces around it."""
    first = start + len(text) - len(text.lstrip())
    return [first, first + len(text.strip())] if text.strip() else []


def windows(rows: Dataset, task: Squad, tokenizer: PreTrainedTokenizerBase, *, source: str, scored: bool) -> Dataset:
    """Return the tokenised windows of every question, with ``example``, ``labels`` and ``window``.

    Args:
        rows: as ``questions`` returns them.
        task: its ``max_length`` and ``stride``.
        tokenizer: a fast one that begins with ``[CLS]`` and pads on the right.
        source: where the rows come from, for messages.
        scored: with the columns that answers are read from: ``context``, ``answers``, and the first
            character of every token of the window and the one behind its last, ``starts`` and ``ends``.

    Raises:
        InputError: the tokenizer does not serve, a question leaves no room, or a context has no tokens.
    """
    if not tokenizer.is_fast or tokenizer.padding_side != "right" or tokenizer.cls_token_id is None:
        raise InputError(
            "task 'squad': expected a fast tokenizer that begins with a [CLS] token and pads on the right; "
            f"got {type(tokenizer).__name__}, padding_side {tokenizer.padding_side}, cls_token {tokenizer.cls_token}"
        )
    length = min(task.max_length, tokenizer.model_max_length)

    def encode(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        _check_room(batch, tokenizer, length - task.stride, source)
        encoded: Any = tokenizer(
            batch["question"],
            batch["context"],
            truncation="only_second",
            max_length=length,
            stride=task.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        extras = ("example", "context", "answers") if scored else ("example",)
        found: list[dict[str, Any]] = []
        for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
            inputs = {name: encoded[name][number] for name in INPUTS if name in encoded}
            place = f"{source}: row {batch['example'][row] + 1}"
            first, starts, ends = _window(encoded.sequence_ids(number), encoded["offset_mapping"][number], place)
            found.append(
                inputs
                | {
                    "labels": label(batch["span"][row], first, starts=starts, ends=ends),
                    "window": [first, first + len(starts) - 1],
                }
                | {name: batch[name][row] for name in extras}
                | ({"starts": starts, "ends": ends} if scored else {})
            )
        return {name: [row[name] for row in found] for name in found[0]}

    return _files.mapped(rows, encode)


def _check_room(batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, most: int, source: str) -> None:
    encoded = tokenizer(batch["question"], add_special_tokens=False, verbose=False)["input_ids"]
    lengths = [len(ids) + tokenizer.num_special_tokens_to_add(pair=True) for ids in encoded]
    worst = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[worst] >= most:
        raise InputError(
            f"{source}: row {batch['example'][worst] + 1}: a question of {lengths[worst]} tokens, [CLS] and [SEP] "
            f"included, leaves no room for its context; expected less than {most}: max_length less stride",
            hint="raise task.max_length, within the model's positions, or lower task.stride",
        )


def _window(
    sequence_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]], place: str
) -> tuple[int, list[int], list[int]]:
    """Return the context's first token, and the first and the end character of each of its tokens."""
    inside = [number for number, sequence in enumerate(sequence_ids) if sequence == 1]
    if not inside:
        raise InputError(f"{place}: the context has no tokens")
    return inside[0], [offsets[number][0] for number in inside], [offsets[number][1] for number in inside]


def label(span: Sequence[int], first: int, *, starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the first and the last token of an answer; the first token twice where the window does not hold it all."""
    if not span or span[0] < starts[0] or span[1] > ends[-1]:
        return [0, 0]
    start, end = bisect_right(ends, span[0]), bisect_left(starts, span[1]) - 1
    return [first + start, first + end] if start <= end else [0, 0]
