"""What an encoder takes and gives: named inputs and outputs, the longest sequence, and example batches of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model.sentences import OUTPUT, Pooling, pool


class Signature(nn.Module):
    """An encoder that takes and returns tensors by position: what the exporter can describe.

    Args:
        model: on any device; its forward takes the named inputs, each (B, T) int64.
        input_names: e.g. ``("input_ids", "attention_mask")``.
        output_names: e.g. ``("logits",)`` or ``("start_logits", "end_logits")``.
        pooling: of the last hidden state, which gives one output more, behind the others: the sentence embedding.
    """

    def __init__(
        self,
        model: nn.Module,
        input_names: Sequence[str],
        output_names: Sequence[str],
        pooling: Pooling | None = None,
    ) -> None:
        super().__init__()
        ready = not model.training and all(parameter.device.type == "cpu" for parameter in model.parameters())
        self.model = model if ready else copy.deepcopy(model).to("cpu")
        self.input_names, self.pooling = tuple(input_names), pooling
        self.taken = tuple(output_names)
        self.output_names = (*self.taken, OUTPUT) if pooling else self.taken
        # A fresh module is in train mode: the exporter would put that mode on the model inside, dropout included.
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.input_names, inputs, strict=True))
        outputs = self.model(**given)
        taken = tuple(outputs[name] for name in self.taken)
        if self.pooling is None:
            return taken
        mask = given.get("attention_mask", torch.ones_like(inputs[0]))
        pooled = pool(taken[0], mask, pooling=self.pooling.mode, normalize=self.pooling.normalize)
        return (*taken, pooled)


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
