"""Which rows are in which batch: a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


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
