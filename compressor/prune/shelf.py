"""Tensors that rest on disk, so that memory does not grow with the calibration rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Shelf:
    """A directory of tensors, by name and number of their batch.

    Args:
        directory: there already; files in it are overwritten.
        device: where tensors are given back.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self.directory, self.device = directory, device

    def put(self, name: str, batch: int, tensor: Tensor) -> None:
        """Store a tensor; an older one of the name and number is replaced."""
        np.save(self._file(name, batch), tensor.detach().cpu().numpy(), allow_pickle=False)

    def get(self, name: str, batch: int) -> Tensor:
        """Return a tensor, on the device."""
        return torch.from_numpy(np.load(self._file(name, batch), allow_pickle=False)).to(self.device)

    def _file(self, name: str, batch: int) -> Path:
        return self.directory / f"{name}-{batch}.npy"


@contextmanager
def temporary_shelf(device: torch.device) -> Iterator[Shelf]:
    """Provide an empty shelf among the system's temporary files, inside a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="compressor-") as directory:
        yield Shelf(Path(directory), device)
