"""Which calibration batches this process works on, and how what the processes found comes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, distributed

from compressor.processes import Processes

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The batches of one of several processes: every so-manieth. Of sums over batches all processes get the whole.

    Whoever uses it calls ``summed`` and ``joined`` in all processes, in the same order.

    Attributes:
        processes: that work together; one alone has every batch.
    """

    processes: Processes = field(default_factory=Processes)

    @classmethod
    def of_run(cls, batches: int, *, joint: bool) -> Share:
        """Return this process's share.

        Args:
            batches: how many there are; where they are fewer than the processes, everybody has them all.
            joint: whether all processes are at it: ``PruningMethod.joint``.
        """
        processes = Processes.of_environment()
        divided = joint and distributed.is_initialized() and processes.count <= batches
        return cls(processes) if divided else cls()

    def owns(self, number: int) -> bool:
        """Tell whether a batch, counted from 0, is of this share."""
        return number % self.processes.count == self.processes.rank

    def of(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of this share."""
        return islice(batches, self.processes.rank, None, self.processes.count)

    def size(self, batches: int) -> int:
        """Return how many of so many batches are of this share."""
        return len(range(self.processes.rank, batches, self.processes.count))

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, the same in all of them; give float64 where orders must not matter."""
        if self.processes.count == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    def meet(self) -> None:
        """Wait until all processes have come to this point; one alone waits for nobody."""
        self.summed(torch.zeros(1))

    def joined(self, part: Tensor, *, rows: int, batch_size: int) -> Tensor:
        """Return what one process alone would have found for every row, bit by bit, in the order of the batches.

        Args:
            part: of this share's rows, shape (n, ...).
            rows: of all batches.
            batch_size: rows of every batch but the last.
        """
        if self.processes.count == 1:
            return part
        whole = part.new_zeros(rows, *part.shape[1:])
        places = torch.split(torch.arange(rows), batch_size)
        whole[torch.cat(list(self.of(places)))] = part
        return self.summed(whole)
