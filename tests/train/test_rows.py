from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compressor.train.rows import Batches, Layout


def batches(epoch: int = 0, **layout: Any) -> list[list[int]]:
    found = Batches(Layout(rows=50, batch_size=12, **layout))
    found.epoch = epoch
    return list(found)


def test_an_epoch_shows_every_row_once_and_leaves_out_what_fills_no_batch():
    rows = np.concatenate(batches())
    assert len(set(rows.tolist())) == len(rows) == 48
    assert len(Batches(Layout(rows=50, batch_size=12))) == 4


def test_the_order_is_that_of_the_seed_and_the_epoch():
    assert batches() == batches()
    assert batches() != batches(epoch=1)
    assert batches() != batches(seed=1)


@pytest.mark.parametrize(("parts", "processes"), [(3, 1), (1, 2), (2, 3)])
def test_parts_and_processes_share_the_rows_of_every_step(parts: int, processes: int):
    shares = [batches(parts=parts, processes=processes, process=process) for process in range(processes)]
    for step, whole in enumerate(batches()):
        of_step = [share[step * parts : (step + 1) * parts] for share in shares]
        assert sorted(row for share in of_step for part in share for row in part) == sorted(whole)
        assert {len(part) for share in of_step for part in share} == {12 // (parts * processes)}
