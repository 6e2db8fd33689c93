"""Checkpoints of a running training: complete or ignored.

A directory ``checkpoint-N`` holds transformers' own files and ours. ``complete.json`` is written into it last, with
the size of every other file: a directory without it, or with a file cut short, is of a process that was killed while
it wrote, and stock loaders crash on it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor

from compressor.model.files import write_text

MARKER = "complete.json"
KEPT = 2
"""Checkpoints that stay while a training runs: the newest, and one more should a disk lose that."""


class Stateful(Protocol):
    """What is saved in every checkpoint and restored from it."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return what must be saved."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> object:
        """Continue from what was saved."""


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; each gets memory of its own, shared or not."""
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, str(path))


def save_states(states: Mapping[str, Stateful], directory: Path) -> None:
    """Write every state to ``<name>.safetensors``."""
    for name, state in states.items():
        save_tensors(state.state_dict(), directory / f"{name}.safetensors")


def load_states(states: Mapping[str, Stateful], directory: Path) -> None:
    """Restore what ``save_states`` wrote."""
    for name, state in states.items():
        state.load_state_dict(load_file(str(directory / f"{name}.safetensors")))


def complete(directory: Path, *, fingerprint: str) -> None:
    """Mark a checkpoint as complete, once its files are on the disk."""
    files = sorted(path for path in directory.iterdir() if path.name != MARKER)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sizes = {path.name: path.stat().st_size for path in files}
    write_text(directory / MARKER, json.dumps({"fingerprint": fingerprint, "files": sizes}, indent=2))


def is_complete(directory: Path, *, fingerprint: str) -> bool:
    """Tell whether a checkpoint is whole, and of the training with this fingerprint."""
    try:
        marker = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        sizes = {name: (directory / name).stat().st_size for name in marker["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    whole: bool = marker.get("fingerprint") == fingerprint and sizes == marker["files"]
    return whole


def numbered(directory: Path) -> list[Path]:
    """Return the checkpoints of a directory, complete or not, by their steps."""
    return sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def newest(directory: Path, *, fingerprint: str) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    found = [path for path in numbered(directory) if is_complete(path, fingerprint=fingerprint)]
    return found[-1] if found else None


def remove_unusable(directory: Path, *, fingerprint: str) -> None:
    """Remove checkpoints that are not complete, or of another training."""
    for path in numbered(directory):
        if not is_complete(path, fingerprint=fingerprint):
            shutil.rmtree(path)


def remove_old(directory: Path) -> None:
    """Remove all but the newest ``KEPT`` checkpoints."""
    for path in numbered(directory)[:-KEPT]:
        shutil.rmtree(path)
