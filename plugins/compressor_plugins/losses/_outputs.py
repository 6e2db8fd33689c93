"""Losses on the task's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compressor.model import read_output
from compressor.plugin import LossRun, Task


@dataclass(frozen=True)
class AgainstLabels(LossRun):
    """The task's loss."""

    task: Task

    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002 - the contract's
        """Return the mean of the samples' losses."""
        return self.task.sample_losses(self.task.output(read_output(student), batch), batch).mean()


@dataclass(frozen=True)
class AgainstOutputs(LossRun):
    """The task's divergence from the dense model."""

    task: Task
    temperature: float

    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the samples' divergences."""
        z, dense = (self.task.output(read_output(outputs), batch) for outputs in (student, teacher))
        return self.task.divergences(z, dense, temperature=self.temperature).mean()
