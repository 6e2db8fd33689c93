from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


def test_a_temporary_shelf_leaves_nothing_behind_even_after_a_failure() -> None:
    with temporary_shelf(CPU) as shelf:
        shelf.put("state", 0, torch.zeros(2))
        assert list(shelf.directory.iterdir())
    assert not shelf.directory.exists()
    with pytest.raises(FileNotFoundError), temporary_shelf(CPU) as failed:
        failed.get("nobody put this", 0)
    assert not failed.directory.exists()
