"""Start and end logits as one output, and what the loss and the distance to the dense model are of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

OUTSIDE = -1e4
"""Logit of a position that cannot be an answer: at temperatures below 100 its probability is exactly 0, and 0 times its logarithm is no NaN."""


def allowed(window: Tensor, length: int) -> Tensor:
    """Return which of ``length`` positions can be an answer, shape (B, length): the window's, and the first.

    Args:
        window: first and last token of the context, shape (B, 2).
        length: of the sequences.
    """
    positions = torch.arange(length, device=window.device)
    inside = (positions >= window[:, :1]) & (positions <= window[:, 1:])
    return inside | (positions == 0)


def output(raw: Tensor, window: Tensor, length: int) -> Tensor:
    """Return z, shape (B, 2, length), of raw logits (B, T, 2), T at most ``length``."""
    inside = allowed(window, raw.shape[1]).unsqueeze(1)
    z = raw.transpose(1, 2).masked_fill(~inside, OUTSIDE)
    return functional.pad(z, (0, length - raw.shape[1]), value=OUTSIDE)


def sample_losses(z: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of the start's and the end's cross entropy, shape (B,), of z (B, 2, L) and labels (B, 2)."""
    return functional.cross_entropy(z.transpose(1, 2), labels, reduction="none").mean(dim=1)


def divergences(z: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """Return ``temperature**2`` times the mean over start and end of KL(dense || z), shape (B,), in nats."""
    log_p, log_q = ((logits / temperature).log_softmax(dim=2) for logits in (dense, z))
    divergences: Tensor = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2).mean(dim=1)
    return divergences


def curvature(z: Tensor, uniform: np.ndarray, *, temperature: float) -> Tensor:
    """Return scalars (B, 2 * draws) whose gradients' outer products sum, in expectation, to the divergence's Hessian.

    At the dense model that is, for start and end each, ``(diag(p) - p p') / 2`` with p of z / temperature: the
    covariance of ``e_y - p`` for y drawn from p, halved. The scalars are ``z_y - p'z`` with p held fixed.

    Args:
        z: shape (B, 2, L).
        temperature: of the divergence; its square there cancels the one of the derivatives.
        uniform: numbers in [0, 1), shape (B, 2, draws), that choose the positions.
    """
    p = (z.detach() / temperature).softmax(dim=2)
    reach = p.double().cumsum(dim=2)
    # To the right of equals: a position of probability 0 is never drawn.
    drawn = torch.searchsorted(reach / reach[..., -1:], torch.from_numpy(uniform).to(reach), right=True)
    scores = z.gather(2, drawn) - (p * z).sum(dim=2, keepdim=True)
    scalars: Tensor = scores.flatten(1) / (2 * uniform.shape[2]) ** 0.5
    return scalars
