"""Losses on hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model.shapes import layer_ids
from compressor.plugin import LossRun

if TYPE_CHECKING:
    from compressor.run.session import Session


def sample_errors(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return every sample's mean squared difference over its real tokens and the features, shape (B,).

    Args:
        student: hidden states, shape (B, T, D).
        teacher: of the same tokens, the same shape.
        mask: 1 = a token, 0 = padding, shape (B, T).
    """
    errors = (student - teacher).square().mean(dim=2)
    return torch.where(mask.bool(), errors, 0).sum(dim=1) / mask.sum(dim=1)


@dataclass(frozen=True)
class AgainstStates(LossRun):
    """Mean squared difference of pairs of layers.

    Attributes:
        pairs: numbers of a layer of the student and of one of the dense model; 0 = the embeddings, -1 = the last.
    """

    pairs: Sequence[tuple[int, int]]

    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over samples and pairs."""
        mask = batch["attention_mask"]
        states = [(student.hidden_states[ours], teacher.hidden_states[theirs]) for ours, theirs in self.pairs]
        return torch.stack([sample_errors(one, other, mask).mean() for one, other in states]).mean()


@dataclass(frozen=True)
class WithReusedHead(AgainstStates):
    """The last hidden states alone are learned."""

    def frozen(self, model: nn.Module) -> frozenset[str]:
        """Return the parameters of the pooler and of everything behind the encoder."""
        whole: Any = model
        encoder = whole.base_model
        prefix = "" if encoder is model else f"{whole.base_model_prefix}."
        names = [name for name, _ in model.named_parameters()]
        return frozenset(n for n in names if not n.startswith(prefix) or n.startswith(f"{prefix}pooler."))


def layer_pairs(session: Session, asked: Mapping[int, int] | None) -> list[tuple[int, int]]:
    """Return pairs of layers, from 1 at the bottom: those asked for, or every layer of the student and what it was.

    Raises:
        InputError: a model has no such layer.
    """
    ours, theirs = (layer_ids(model.config, session.family.groups(model)) for model in (session.model, session.teacher))
    if asked is None:
        return [(number, theirs.index(layer) + 1) for number, layer in enumerate(ours, 1) if layer in theirs]
    for name, layers, known in (("student", asked.keys(), ours), ("dense model", asked.values(), theirs)):
        wrong = sorted(layer for layer in layers if not 0 <= layer <= len(known))
        if wrong:
            raise InputError(
                f"loss 'hidden': layers: the {name} has layers 1 to {len(known)} and embeddings 0; got {wrong}",
                hint="correct the option layers of the loss",
            )
    return sorted(asked.items())
