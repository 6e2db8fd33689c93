"""What an encoder takes and gives: named inputs and outputs, the longest sequence, and example batches of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError


class Signature(nn.Module):
    """An encoder that takes and returns tensors by position: what the exporter can describe.

    Args:
        model: on any device; its forward takes the named inputs, each (B, T) int64.
        input_names: e.g. ``("input_ids", "attention_mask")``.
        output_names: e.g. ``("logits",)`` or ``("start_logits", "end_logits")``.
    """

    def __init__(self, model: nn.Module, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        super().__init__()
        ready = not model.training and all(parameter.device.type == "cpu" for parameter in model.parameters())
        self.model = model if ready else copy.deepcopy(model).to("cpu")
        self.input_names, self.output_names = tuple(input_names), tuple(output_names)
        # A fresh module is in train mode: the exporter would put that mode on the model inside, dropout included.
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(**dict(zip(self.input_names, inputs, strict=True)))
        return tuple(outputs[name] for name in self.output_names)


def example_batch(model: nn.Module, input_names: Sequence[str], batch: int, length: int) -> dict[str, Tensor]:
    """Draw inputs of shape (batch, length), int64; rows after the first end in padding, each in its own place."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(1, batch):
        mask[row, max(1, length - row * length // (batch + 1)) :] = 0

    def draw(below: int) -> Tensor:
        return torch.randint(0, below, (batch, length), generator=generator)

    known: Mapping[str, Tensor] = {
        "input_ids": torch.where(mask == 1, draw(config.vocab_size), config.pad_token_id or 0),
        "attention_mask": mask,
        "token_type_ids": draw(max(1, getattr(config, "type_vocab_size", 1))),
    }
    unknown = [name for name in input_names if name not in known]
    if unknown:
        raise CompressorError(f"the exporter knows no input named {', '.join(unknown)}; known: {', '.join(known)}")
    return {name: known[name] for name in input_names}
