"""A run by several processes: the first one leads, the others train with it and read what it made.

All start the same command, by ``torchrun`` or ``accelerate launch``. The first owns the run directory and does every
step. The others load the same models and wait: where a step trains, or divides its calibration batches, they take part,
and of every finished step they read the result as a resumed run does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from compressor.plugin import PruningMethod
from compressor.processes import Processes
from compressor.prune import Share
from compressor.recipe.plan import Step

PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which may prune for hours."""


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Join the processes for a while; one alone has nothing to join."""
    if processes.count == 1 or distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def tell(processes: Processes, *message: Any) -> None:
    """Tell the other processes something that JSON can hold; one alone tells nobody."""
    if processes.count > 1:
        data = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        distributed.broadcast(torch.tensor([len(data)]), src=0)
        distributed.broadcast(data, src=0)


def hear() -> Sequence[Any]:
    """Wait for what the first process tells."""
    length = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(length, src=0)
    data = torch.zeros(int(length), dtype=torch.uint8)
    distributed.broadcast(data, src=0)
    message: Sequence[Any] = json.loads(bytes(data.numpy()))
    return message


def meet(processes: Processes) -> None:
    """Wait until all processes have come to this point; one alone waits for nobody."""
    Share(processes).meet()


def is_shared(step: Step) -> bool:
    """Tell whether all processes take part in a step: it trains, or divides the calibration batches."""
    return step.verb == "train" or (isinstance(step.component, PruningMethod) and step.component.joint)
