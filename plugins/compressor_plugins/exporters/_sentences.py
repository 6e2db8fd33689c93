"""Whether the pooling that goes into a graph is the one that a task measures."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.model.sentences import pool, pooling_of
from compressor.plugin import Task


def check_pooling(model: nn.Module, task: Task) -> None:
    """Compare what a model's directory and a task make of the same hidden states.

    Raises:
        InputError: the task needs a head, the directory does not say how it pools, or the two differ.
    """
    if task.head != "feature-extraction":
        raise InputError(
            f"pooling: task '{task.name}' has a head on the encoder; only embeddings are pooled",
            hint="leave pooling out",
        )
    encoder: Any = model
    pooling = pooling_of(encoder.config)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 8, generator=generator)
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in (5, 3, 1)])
    ours = pool(hidden, mask, pooling=pooling.mode, normalize=pooling.normalize)
    theirs = task.output(hidden, {"attention_mask": mask, "input_ids": mask})
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, atol=1e-5):
        raise InputError(
            f"pooling: the model's directory says {pooling}; task '{task.name}' measures other embeddings",
            hint=f"set task.pooling: {pooling.mode} and task.normalize: {str(pooling.normalize).lower()}",
        )
