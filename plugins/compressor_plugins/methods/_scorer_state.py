"""Checkpoints of a scorer in training: whole, or not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "scorer-training.safetensors"


@dataclass(frozen=True)
class ScorerState:
    """Where a training keeps what it resumes from.

    Attributes:
        directory: made when it is needed; the run removes it once the step is finished.
        key: of the training: a checkpoint of another one is passed by.
    """

    directory: Path
    key: str

    def save(self, scorer: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """Write weights and the optimizer's moments; the file appears by one rename."""
        tensors = {f"scorer.{name}": tensor for name, tensor in scorer.state_dict().items()}
        moments: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
        for number, own in moments.items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in own.items()}
        self._write(FILE, tensors, steps=str(steps))

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return tensors that are made once in a training, however often it is killed; kept on the CPU."""
        file = f"{name}.safetensors"
        found = self._read(file)
        if found is not None:
            return found[0]
        made = make()
        self._write(file, made)
        return made

    def restore(self, scorer: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put a checkpoint back; return how many steps it has behind it, 0 where there is none of this training."""
        found = self._read(FILE)
        if found is None:
            return 0
        tensors, metadata = found
        prefix = "scorer."
        weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        scorer.load_state_dict(weights)
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                number, _, moment = rest.partition(".")
                moments.setdefault(int(number), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return int(metadata["steps"])

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return a file's tensors and metadata; nothing where it is not there, broken, or of another training."""
        try:
            with safe_open(str(self.directory / name), framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError):
            return None
        return (tensors, metadata) if metadata.get("key") == self.key else None

    def _write(self, name: str, tensors: Mapping[str, Tensor], **metadata: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        written = self.directory / f"{name}.partial"
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        save_file(plain, str(written), {"key": self.key, **metadata})
        written.replace(self.directory / name)
