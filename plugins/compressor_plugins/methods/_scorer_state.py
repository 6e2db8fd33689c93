"""Checkpoints of a scorer in training: whole, or not there."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"scorer.{name}": tensor for name, tensor in scorer.state_dict().items()}
        moments: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
        for number, own in moments.items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in own.items()}
        written = self.directory / f"{FILE}.partial"
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, str(written), {"key": self.key, "steps": str(steps)})
        written.replace(self.directory / FILE)

    def restore(self, scorer: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put a checkpoint back; return how many steps it has behind it, 0 where there is none of this training."""
        try:
            with safe_open(str(self.directory / FILE), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError):
            return 0
        if metadata.get("key") != self.key:
            return 0
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
