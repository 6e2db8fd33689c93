"""CAP's contrastive terms: functions of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Vectors:
    """Unit vectors, and what they are of.

    Attributes:
        vectors: shape (M, D).
        index: numbers of their rows, shape (M,).
        labels: their classes, shape (M,); None = there are none.
    """

    vectors: Tensor
    index: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Terms:
    """Both terms of one bank: every anchor's mean over its positives, and how many these are, each shape (B,)."""

    unsupervised: Tensor
    same_row: Tensor
    supervised: Tensor
    same_class: Tensor

    def means(self, norm: str) -> tuple[Tensor, Tensor]:
        """Return both terms, scalars: the mean over the batch, or divided by all its positives as the released code does."""
        pairs = ((self.unsupervised, self.same_row), (self.supervised, self.same_class))
        first, second = (each.mean() if norm == "batch" else each.sum() / count.sum() for each, count in pairs)
        return first, second


def contrast(anchors: Vectors, others: Vectors, temperature: float) -> Terms:
    """Contrast anchors with candidates, which get no gradient: the anchors again, and others.

    Args:
        anchors: of the batch, B of them.
        others: rows of a bank, those of the batch among them, M of them.
        temperature: divides the cosines.
    """
    candidates = torch.cat([anchors.vectors, others.vectors.to(anchors.vectors)]).detach()
    itself = torch.eye(len(anchors.index), len(candidates), dtype=torch.bool, device=candidates.device)
    scores = (anchors.vectors @ candidates.T / temperature).masked_fill(itself, -torch.inf)
    losses = -scores.log_softmax(dim=1)

    def over(values: Tensor | None, more: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean loss over candidates of the anchor's value, and their number."""
        if values is None or more is None:
            return losses.new_zeros(len(losses)), losses.new_ones(len(losses))
        positive = (values.unsqueeze(1) == torch.cat([values, more])) & ~itself
        count = positive.sum(dim=1)
        return torch.where(positive, losses, 0.0).sum(dim=1) / count, count

    return Terms(*over(anchors.index, others.index), *over(anchors.labels, others.labels))


def sentence_vectors(encoded: Mapping[str, Tensor], mask: Tensor, vector: str) -> Tensor:
    """Return unit vectors of sentences, shape (B, D).

    Args:
        encoded: what an encoder gave: ``last_hidden_state`` (B, T, D), and ``pooler_output`` (B, D) if it has a pooler.
        mask: 1 = a token, 0 = padding, shape (B, T).
        vector: ``cls`` or ``mean``.
    """
    if vector == "mean":
        weights = mask.unsqueeze(2).to(encoded["last_hidden_state"].dtype)
        found = (encoded["last_hidden_state"] * weights).sum(dim=1) / weights.sum(dim=1)
    elif encoded.get("pooler_output") is not None:
        found = encoded["pooler_output"]
    else:
        found = encoded["last_hidden_state"][:, 0]
    return functional.normalize(found, dim=1)
