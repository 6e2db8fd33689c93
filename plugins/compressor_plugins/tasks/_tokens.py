"""Logits of every word as one output, and what the loss, the distance to the dense model and its curvature are of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""Label of a position that carries no word: what is no first sub-word, and padding."""
OUTSIDE = -1e4
"""All logits of such a position: its classes are equally likely on both sides, so nothing is made of it."""


def output(raw: Tensor, labels: Tensor) -> Tensor:
    """Return z, shape (B, L, C), of raw logits (B, T, C) and labels (B, L), T at most L."""
    words = labels[:, : raw.shape[1]] != IGNORED
    z = raw.masked_fill(~words.unsqueeze(2), OUTSIDE)
    return functional.pad(z, (0, 0, 0, labels.shape[1] - raw.shape[1]), value=OUTSIDE)


def words_of(z: Tensor) -> Tensor:
    """Return which positions of z (B, L, C) carry words, shape (B, L)."""
    return z.amax(dim=2) > OUTSIDE / 2


def sample_losses(z: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of every sample's words, shape (B,), of z (B, L, C) and labels (B, L)."""
    losses = functional.cross_entropy(z.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    return losses.sum(dim=1) / (labels != IGNORED).sum(dim=1)


def divergences(z: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """Return ``temperature**2`` times the mean over a sample's words of KL(dense || z), shape (B,), in nats."""
    log_p, log_q = ((logits / temperature).log_softmax(dim=2) for logits in (dense, z))
    total = (log_p.exp() * (log_p - log_q)).sum(dim=(1, 2))
    divergences: Tensor = temperature**2 * total / words_of(dense).sum(dim=1)
    return divergences


def projected(columns: Tensor, words: Tensor, *, draws: int, generator: np.random.Generator) -> Tensor:
    """Return scalars (B, draws): sums, with random signs, of the scalars that stand for one word's curvature each.

    Words do not share logits, so the Hessian of their mean is block diagonal: what two words have in common vanishes in
    expectation over the signs.

    Args:
        columns: of every position, shape (B * L, K).
        words: how many each sample has, shape (B,).
        draws: of signs.
        generator: of the signs; every row takes its own, in the order of the rows.
    """
    scalars = columns.reshape(len(words), 1, -1)
    signs = generator.integers(0, 2, size=(len(words), draws, scalars.shape[2])) * 2.0 - 1.0
    summed = (torch.from_numpy(signs).to(scalars) * scalars).sum(dim=2)
    projections: Tensor = summed / (draws * words.unsqueeze(1)).to(summed).sqrt()
    return projections
