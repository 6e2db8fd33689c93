"""What an encoder takes and gives: its inputs, the longest of them, and the output that a task reads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAMES: Mapping[str, tuple[str, ...]] = {
    "sequence-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    "feature-extraction": ("last_hidden_state",),
}
"""Names of the outputs, in torch and in the exported graph, by the model's head."""

Values = TypeVar("Values", Tensor, np.ndarray)


def accepted_inputs(model: nn.Module) -> tuple[str, ...]:
    """Return which of ``INPUTS`` the model's forward names: a tokenizer may give token types DistilBERT has no use for."""
    parameters = inspect.signature(model.forward).parameters
    return tuple(name for name in INPUTS if name in parameters)


def raw_output(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Run the model on a batch's inputs; return what its head gives.

    Logits (B, C), or of every token (B, T, C); start and end logits, stacked to (B, T, 2); or the last hidden state (B, T, D) of a bare encoder.
    """
    return read_output(model(**{name: batch[name] for name in accepted_inputs(model) if name in batch}))


def read_output(outputs: Any) -> Tensor:
    """Return what ``raw_output`` does, of the output that transformers' model gave."""
    names = next(names for names in OUTPUT_NAMES.values() if names[0] in outputs)
    return outputs[names[0]] if len(names) == 1 else torch.stack([outputs[name] for name in names], dim=-1)


def at_real_tokens(output: Values, mask: Values) -> Values:
    """Return an output at real tokens, shape (n, ...), where it has values for every token; any other as it is.

    What stands at padding means nothing: in a model with windows a padded token may attend to nothing at all, and
    runtimes differ in what that gives.

    Args:
        output: as of ``raw_output``, (B, C) or (B, T, C).
        mask: which tokens are real, bool, (B, T).
    """
    return output[mask] if output.ndim > mask.ndim else output


def max_positions(model: nn.Module) -> int:
    """Return the longest sequence the position embeddings allow; RoBERTa's begin behind its padding index."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    config: Any = model.config
    return int(config.max_position_embeddings)


def attention_input(hidden_states: Tensor | None, query: Tensor | None) -> Tensor:
    """Return the hidden states that an attention block is called with: 4.57's DistilBERT says ``query``.

    Raises:
        TypeError: neither is given.
    """
    hidden = query if hidden_states is None else hidden_states
    if hidden is None:
        raise TypeError("expected hidden states")
    return hidden
