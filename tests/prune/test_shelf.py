from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.errors import CompressorError
from compressor.prune import Shelf, temporary_shelf

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_come_back_as_they_were_put(dtype: torch.dtype, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CPU)
    tensors = {(name, batch): torch.randn(2, 3, dtype=dtype) for name in ("read-heads", "read") for batch in (0, 11)}
    for (name, batch), tensor in tensors.items():
        shelf.put(name, batch, tensor.requires_grad_())
    for (name, batch), tensor in tensors.items():
        found = shelf.get(name, batch)
        assert found.dtype == dtype
        assert not found.requires_grad
        assert torch.equal(found, tensor)


def test_the_last_tensor_of_a_name_counts_and_what_is_done_to_it_stays_out(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CPU)
    shelf.put("state", 0, torch.zeros(4, 5))
    shelf.put("state", 0, torch.ones(2))
    shelf.get("state", 0).add_(1)
    assert torch.equal(shelf.get("state", 0), torch.ones(2))


def test_a_larger_tensor_in_the_place_of_a_smaller_one_leaves_the_others_alone(tmp_path: Path) -> None:
    with Shelf(tmp_path, CPU) as shelf:
        shelf.put("first", 0, torch.zeros(3))
        shelf.put("second", 0, torch.ones(3))
        for length in (2, 7, 0, 5):
            tensor = torch.arange(float(length))
            shelf.put("first", 0, tensor)
            assert torch.equal(shelf.get("first", 0), tensor)
            assert torch.equal(shelf.get("second", 0), torch.ones(3))
        assert shelf.size == 4 * (3 + 3 + 7)
        assert [each.stat().st_size for each in tmp_path.iterdir()] == [shelf.size]


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    with Shelf(tmp_path, CPU) as shelf:
        shelf.put("state", 0, torch.zeros(8))
        next(tmp_path.iterdir()).write_bytes(bytes(20))
        with pytest.raises(CompressorError, match="expected 12 bytes more"):
            shelf.get("state", 0)


def test_a_temporary_shelf_leaves_nothing_behind_even_after_a_failure() -> None:
    with temporary_shelf(CPU) as shelf:
        shelf.put("state", 0, torch.zeros(2))
        assert list(shelf.directory.iterdir())
    assert not shelf.directory.exists()
    with pytest.raises(KeyError), temporary_shelf(CPU) as failed:
        failed.get("nobody put this", 0)
    assert not failed.directory.exists()
