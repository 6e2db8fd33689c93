"""The relation-preserving objective: which of two sentences is more like a third, and how sure that is, must not change."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 10.0
"""What cosines are multiplied by."""
SINGLE = 10.0
"""What the loss of single sentences is multiplied by, as published: their vectors differ more than pooled ones."""
FEATURES = 0.2
"""Share of the features that a training step compares."""
TINY = 1e-12


def relations(vectors: Tensor) -> Tensor:
    """Return log probabilities, shape (n, n / 2, 2): of sentences 2m and 2m + 1, which is more like sentence i.

    Args:
        vectors: of n sentences, n even, shape (n, D).
    """
    centred = vectors - vectors.mean(dim=0)
    units = centred / centred.norm(dim=1, keepdim=True).clamp_min(TINY)
    cosines = SHARPNESS * units @ units.T
    logs: Tensor = cosines.reshape(len(vectors), -1, 2).log_softmax(dim=2)
    return logs


def relation_loss(vectors: Tensor, full: Tensor, *, pair: bool) -> Tensor:
    """Return how much relations changed, a scalar: the mean KL(full || now) over all anchors and pairs.

    Args:
        vectors: of the model with heads masked, shape (n, D), n even.
        full: of the same sentences by the whole model.
        pair: whether sentences are pairs of texts.
    """
    expected, found = relations(full), relations(vectors)
    divergence = (expected.exp() * (expected - found)).sum(dim=2).mean()
    return divergence if pair else SINGLE * divergence


def feature_mask(features: int, generator: torch.Generator) -> Tensor:
    """Return a random mask of features that keeps a fifth of them, shape (D,), on the CPU."""
    return (torch.rand(features, generator=generator) < FEATURES).float()


def sampled_gates(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Draw which half of a layer's heads stays, shape (H,), values 0 or 1 with the gradient of soft ones (straight-through).

    Up to 5 H one-hot Gumbel softmax samples (temperature 1) are drawn from the scores; the first so many of them that name H / 2
    heads are put together. Should all of them name fewer, fewer stay.

    Args:
        scores: as logits, shape (H,).
        generator: on the CPU.
    """
    heads = len(scores)
    uniform = torch.rand(5 * heads, heads, generator=generator).clamp(1e-9, 1 - 1e-7)
    soft = (scores - (-uniform.log()).log().to(scores)).softmax(dim=1)
    chosen = soft.argmax(dim=1)
    hard = torch.nn.functional.one_hot(chosen, heads).to(soft)
    named = hard.cumsum(dim=0).clamp(max=1).sum(dim=1)
    enough = (named >= heads // 2).nonzero()
    first = int(enough[0]) + 1 if len(enough) else len(hard)
    through = hard + (soft - soft.detach())
    return through[:first].amax(dim=0)
