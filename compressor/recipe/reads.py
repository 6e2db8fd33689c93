"""What the steps of a plan read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressor.plugin import Training
from compressor.plugin.component import nested
from compressor.recipe.plan import Step


def trainings(steps: Sequence[Step]) -> Iterator[tuple[Step, Training]]:
    """Yield the steps that train, and how; a pruning method may have it as an option."""
    for step in steps:
        for component in nested(step.component):
            if isinstance(component, Training):
                yield step, component


def reads_texts(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps that decide by the tokenizer and every train row."""
    return (step for step in steps if step.reads_texts)


class RowsRead(NamedTuple):
    """Which rows a run reads all of, beside those that it draws from the train split."""

    train: bool
    validation: bool


def what_is_read(steps: Sequence[Step]) -> RowsRead:
    """Return which rows steps read. Validation rows are read wherever train rows are.

    Few of those steps need them: a mistake in them is better found before an hour of pruning.
    """
    train = any(trainings(steps)) or any(reads_texts(steps))
    return RowsRead(train, validation=train or any(step.verb in {"quantize", "verify"} for step in steps))


def trains_head(steps: Sequence[Step]) -> bool:
    """Tell whether the first step trains against labels: a checkpoint then needs no trained head."""
    first = steps[0].component if steps else None
    return isinstance(first, Training) and any(loss.needs_labels for loss in first.losses)
