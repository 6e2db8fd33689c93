"""What stands on an encoder: transformers' tables of models by their heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

HEADS: Mapping[str, Any] = {
    "sequence-classification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "token-classification": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "question-answering": MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    "feature-extraction": MODEL_MAPPING,
}
"""From a config's class to the class of the model with that head."""


def head_of(model: nn.Module) -> str:
    """Return which head of ``HEADS`` a model has; the bare encoder's where it has none of them."""
    config: Any = model.config
    heads = (head for head, table in HEADS.items() if table.get(type(config), None) is type(model))
    return next(heads, "feature-extraction")
