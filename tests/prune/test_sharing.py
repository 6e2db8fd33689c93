from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from compressor.processes import Processes
from compressor.prune import Share


@pytest.mark.parametrize("batches", [2, 5, 8])
def test_every_batch_is_of_one_share(batches: int):
    shares = [Share(Processes(count=2, rank=rank)) for rank in (0, 1)]
    assert sorted(number for share in shares for number in share.of(range(batches))) == list(range(batches))
    for share in shares:
        own = list(share.of(range(batches)))
        assert [number for number in range(batches) if share.owns(number)] == own
        assert share.size(batches) == len(own)


def test_a_run_that_nobody_joined_has_every_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Share.of_run(8, joint=True) == Share()
    tensor = torch.ones(2)
    assert Share().summed(tensor) is Share().joined(tensor, rows=2, batch_size=1) is tensor


@pytest.mark.parametrize(("batches", "joint", "count"), [(8, True, 2), (8, False, 1), (1, True, 1)])
def test_batches_are_divided_where_all_take_part_and_each_gets_one(
    batches: int, joint: Any, count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    assert Share.of_run(batches, joint=joint).processes.count == count


class Meeting:
    """Two threads in the place of two processes: ``torch.distributed.all_reduce`` between them."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.brought: dict[int, torch.Tensor] = {}
        self.own = threading.local()

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.brought[self.own.rank] = tensor.clone()
        self.barrier.wait()
        total = self.brought[0] + self.brought[1]
        self.barrier.wait()
        tensor.copy_(total)

    def processes(self) -> Processes:
        return Processes(count=2, rank=self.own.rank)


def by_two(work: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what each of two processes gets that do the same work together; it is told its rank."""
    meeting, found = Meeting(), dict[int, Any]()

    def one(rank: int) -> None:
        meeting.own.rank = rank
        try:
            found[rank] = work(rank)
        finally:
            if rank not in found:
                meeting.barrier.abort()

    with monkeypatch.context() as patch:
        patch.setattr("torch.distributed.is_initialized", lambda: True)
        patch.setattr("torch.distributed.all_reduce", meeting.all_reduce)
        patch.setattr(Processes, "of_environment", meeting.processes)
        threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [found[rank] for rank in (0, 1)]


def test_rows_come_together_in_their_order(monkeypatch: pytest.MonkeyPatch):
    rows = torch.randn(11, 3)

    def work(_: int) -> torch.Tensor:
        share = Share.of_run(3, joint=True)
        return share.joined(torch.cat(list(share.of(rows.split(4)))), rows=11, batch_size=4)

    assert all(torch.equal(found, rows) for found in by_two(work, monkeypatch))


def test_sums_are_of_all_processes_and_leave_the_parts_alone(monkeypatch: pytest.MonkeyPatch):
    def work(_: int) -> tuple[torch.Tensor, torch.Tensor]:
        share = Share.of_run(2, joint=True)
        part = torch.full((2, 3), 1.0 + share.processes.rank).T  # not contiguous
        return share.summed(part), part

    (one, first), (two, second) = by_two(work, monkeypatch)
    assert torch.equal(one, two)
    assert one.unique().tolist() == [3.0]
    assert (first.unique().tolist(), second.unique().tolist()) == ([1.0], [2.0])
