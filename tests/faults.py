"""Faults at file operations: a test says at which one the disk is full, or the process dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import safetensors.torch
import torch

OPERATIONS: tuple[tuple[str, Any, str, int], ...] = (
    ("make", os, "mkdir", 0),
    ("write", safetensors.torch, "serialize_file", 1),
    ("write", onnx, "save_model", 1),
    ("write", torch, "save", 1),
    ("write", shutil, "copyfile", 1),
    ("sync", os, "fsync", 0),
    ("rename", os, "replace", 1),
    ("rename", os, "rename", 1),
    ("link", os, "link", 1),
)
"""What an operation is called, where it is, and which argument has the path that it makes."""


@dataclass(frozen=True)
class Operation:
    """One operation that is about to happen.

    Attributes:
        name: ``write``, ``sync``, ``rename``, ``make`` or ``link``.
        path: what it makes.
        perform: does it.
    """

    name: str
    path: Path
    perform: Callable[[], Any]

    def half(self) -> None:
        """Leave half of what is written; what happens at once does not happen."""
        if self.name == "write":
            self.perform()
        if self.name in {"write", "sync"}:
            os.truncate(self.path, self.path.stat().st_size // 2)


def watch(patch: pytest.MonkeyPatch, struck: Callable[[Operation], None]) -> None:
    """Show every operation to ``struck`` before it happens; what that raises happens in its place."""
    for name, module, function, position in OPERATIONS:
        patch.setattr(module, function, _watched(name, getattr(module, function), position, struck))


def _watched(name: str, real: Any, position: int, struck: Callable[[Operation], None]) -> Any:
    def operation(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position and isinstance(args[position], str | os.PathLike | int):
            path = args[position]
            where = Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else Path(path)
            struck(Operation(name, where, lambda: real(*args, **kwargs)))
        return real(*args, **kwargs)

    return operation
