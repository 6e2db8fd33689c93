"""Tensors that rest on disk, so that memory does not grow with the calibration rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from compressor.errors import CompressorError


@dataclass(frozen=True)
class _Place:
    """Where in the file a tensor lies: bytes from ``start``, of which ``room`` are its own."""

    start: int
    room: int
    shape: torch.Size
    dtype: torch.dtype


class Shelf:
    """Tensors by name and number of their batch, in one file that stays open: opening one for each costs more than writing.

    Args:
        directory: there already; the file in it is overwritten.
        device: where tensors are given back.

    Attributes:
        size: bytes of the file.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self.directory, self.device = directory, device
        self.size = 0
        self._places: dict[tuple[str, int], _Place] = {}
        self._file = (directory / "states").open("w+b", buffering=0)

    def put(self, name: str, batch: int, tensor: Tensor) -> None:
        """Store a tensor; an older one of the name and number is replaced, in its place where it is not smaller."""
        given = tensor.detach().to("cpu").contiguous()
        length, place = given.numel() * given.element_size(), self._places.get((name, batch))
        if place is None or place.room < length:
            place = _Place(self.size, length, given.shape, given.dtype)
            self.size += length
        self._places[name, batch] = _Place(place.start, place.room, given.shape, given.dtype)
        self._file.seek(place.start)
        left = _bytes(given)
        while left:
            left = left[self._file.write(left) :]

    def get(self, name: str, batch: int) -> Tensor:
        """Return a tensor, on the device.

        Raises:
            KeyError: none was put there.
        """
        place = self._places[name, batch]
        found = torch.empty(place.shape, dtype=place.dtype)
        self._file.seek(place.start)
        left = _bytes(found)
        while left:
            count = self._file.readinto(left)
            if not count:
                raise CompressorError(f"{self._file.name}: expected {len(left)} bytes more; was it changed?")
            left = left[count:]
        return found.to(self.device)

    def __enter__(self) -> Self:
        """Return the shelf."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()


def _bytes(tensor: Tensor) -> memoryview:
    """Return what a contiguous tensor on the CPU consists of."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def temporary_shelf(device: torch.device) -> Iterator[Shelf]:
    """Provide an empty shelf among the system's temporary files, inside a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="compressor-") as directory, Shelf(Path(directory), device) as shelf:
        yield shelf
