"""Scores and masks: what a criterion says of every unit, and what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressor.errors import InputError

Scores = Mapping[str, Tensor]
"""Per group, shape (units,), or per weight with the weight's shape; higher = keep."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Boolean masks, ``True`` = keep.

    Attributes:
        keep: per group of units, shape (units,); or per weight, with the weight's shape.
    """

    keep: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, mask in self.keep.items():
            if mask.dtype != torch.bool:
                raise TypeError(f"mask '{name}': expected bool, got {mask.dtype}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keep.keys() == other.keep.keys() and all(
            torch.equal(mask, other.keep[name]) for name, mask in self.keep.items()
        )

    __hash__ = None  # type: ignore[assignment]  # holds tensors

    def __repr__(self) -> str:
        kept = sum(int(mask.sum()) for mask in self.keep.values())
        total = sum(mask.numel() for mask in self.keep.values())
        return f"Masks({len(self.keep)} groups, {kept} of {total} kept)"

    @property
    def sparsity(self) -> float:
        """Fraction of the masked elements that is removed, in [0, 1]."""
        total = sum(mask.numel() for mask in self.keep.values())
        kept = sum(int(mask.sum()) for mask in self.keep.values())
        return 1.0 - kept / total if total else 0.0

    def merge(self, other: Masks) -> Masks:
        """Return masks that keep what both keep; names of either side alone are taken over."""
        both = dict(self.keep)
        for name, mask in other.keep.items():
            both[name] = both[name] & mask if name in both else mask
        return Masks(both)

    def save(self, path: Path) -> None:
        """Write the masks as safetensors."""
        save_file({name: mask.contiguous().cpu() for name, mask in self.keep.items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Read masks that ``save`` wrote.

        Raises:
            InputError: the file is missing or is not a safetensors file of masks.
        """
        try:
            return cls(load_file(str(path)))
        except (OSError, TypeError, SafetensorError) as error:
            raise InputError(f"{path}: expected masks in a safetensors file: {error}") from error
