"""Which rows are in which batch: a function of the seed and the epoch alone; every row knows its number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from compressor.errors import InputError
from compressor.plugin.training import Training
from compressor.processes import Processes


@dataclass(frozen=True)
class NumberedRows:
    """Rows of the train split, each with its number there as ``index``: losses remember rows by it.

    Attributes:
        rows: of the split.
        numbers: of those that are meant, in this order, shape (n,).
    """

    rows: Sequence[Mapping[str, Any]]
    numbers: np.ndarray

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.numbers)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Return the row at a place."""
        number = int(self.numbers[place])
        return {**self.rows[number], "index": number}

    def column(self, name: str) -> list[Any]:
        """Return a column of them."""
        whole: Any = self.rows
        values = whole[name][:] if hasattr(whole, "column_names") else [row[name] for row in whole]
        return [values[number] for number in self.numbers]


@dataclass(frozen=True)
class Layout:
    """How the rows of an epoch are cut into optimizer steps, and a step into parts and processes.

    Every step has ``batch_size`` rows. What is left of an epoch's rows waits for the next epoch, whose order is another:
    with equal parts the mean over parts and processes is the mean over the batch, so neither changes what is learned.

    Attributes:
        rows: of the train split.
        batch_size: rows per optimizer step.
        parts: of a batch, one after another.
        processes: that share every part.
        process: which of them this is.
        seed: of the order.
    """

    rows: int
    batch_size: int
    parts: int = 1
    processes: int = 1
    process: int = 0
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.rows // self.batch_size

    @property
    def share(self) -> int:
        """Rows of one process in one part."""
        return self.batch_size // (self.parts * self.processes)

    def order(self, epoch: int) -> np.ndarray:
        """Return the numbers of an epoch's rows in their order, shape (steps * batch_size,)."""
        drawn = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        return drawn[: self.steps * self.batch_size]


class Batches(Sampler[list[int]]):
    """The row numbers of every part of this process, epoch by epoch.

    Attributes:
        layout: of the rows.
        epoch: whose order is given; who iterates sets it.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of one part after another."""
        layout = self.layout
        shares = layout.order(self.epoch).reshape(-1, layout.processes, layout.share)
        yield from (part[layout.process].tolist() for part in shares)

    def __len__(self) -> int:
        """Return the number of parts of an epoch."""
        return self.layout.steps * self.layout.parts


def drawn(rows: Sequence[Mapping[str, Any]], options: Training, *, seed: int) -> NumberedRows:
    """Return the train rows, or those that ``samples`` or ``fraction`` ask for, drawn without replacement."""
    count = len(rows) if options.fraction is None else math.ceil(round(options.fraction * len(rows), 6))
    count = min(count, options.samples or count)
    if count == len(rows):
        return NumberedRows(rows, np.arange(count))
    return NumberedRows(rows, np.random.default_rng(seed).permutation(len(rows))[:count])


def laid_out(rows: int, options: Training, *, seed: int) -> Layout:
    """Return how the rows are cut into steps, parts and processes.

    Raises:
        InputError: they are fewer than a batch, or a batch does not divide.
    """
    processes = Processes.of_environment()
    if rows < options.batch_size:
        raise InputError(
            f"training: {rows} train rows are fewer than batch_size {options.batch_size}", hint="lower train.batch_size"
        )
    if options.batch_size % (options.gradient_accumulation * processes.count):
        raise InputError(
            f"training: batch_size {options.batch_size} does not divide into {options.gradient_accumulation} parts for "
            f"{processes.count} processes each",
            hint="batch_size counts the rows of all processes: make it a multiple of gradient_accumulation x processes",
        )
    return Layout(
        rows=rows,
        batch_size=options.batch_size,
        parts=options.gradient_accumulation,
        processes=processes.count,
        process=processes.rank,
        seed=seed,
    )
