"""The one tensor of a model's output that a task reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAMES: Mapping[str, str] = {
    "sequence-classification": "logits",
    "feature-extraction": "last_hidden_state",
}
"""Name of the output, in torch and in the exported graph, by the model's head."""


def raw_output(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Run the model on a batch's inputs; return logits (B, C), or the last hidden state (B, T, D) of a bare encoder."""
    outputs: Any = model(**{name: batch[name] for name in INPUTS if name in batch})
    logits: Tensor | None = getattr(outputs, "logits", None)
    return outputs.last_hidden_state if logits is None else logits
