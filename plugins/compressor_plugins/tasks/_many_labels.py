"""Independent classes: their labels, loss, distance to the dense model, its curvature, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional


def sample_losses(z: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross entropy of every row, shape (B,), of z and labels (B, C)."""
    return functional.binary_cross_entropy_with_logits(z, labels.to(z), reduction="none").mean(dim=1)


def divergences(z: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """Return ``temperature**2`` times the mean over classes of KL(dense || z), shape (B,), in nats."""
    p = (dense / temperature).sigmoid()
    yes, no = (
        functional.logsigmoid(sign * dense / temperature) - functional.logsigmoid(sign * z / temperature)
        for sign in (1, -1)
    )
    divergences: Tensor = temperature**2 * (p * yes + (1 - p) * no).mean(dim=1)
    return divergences


def curvature(z: Tensor, temperature: float) -> Tensor:
    """Return scalars (B, C) whose gradients' outer products are the Hessian ``diag(p (1 - p)) / C`` of the divergence."""
    p = (z.detach() / temperature).sigmoid()
    return (p * (1 - p) / z.shape[1]).sqrt() * z


def table(outputs: np.ndarray, samples: Sequence[Mapping[str, Any]], threshold: float) -> dict[str, np.ndarray]:
    """Return the columns that metrics are computed on; ``predictions`` has all classes of a row in one text."""
    labels = np.array([sample["labels"] for sample in samples]) > 0
    chosen = outputs > np.log(threshold / (1 - threshold))
    predictions = np.array([" ".join(str(number) for number in np.flatnonzero(row)) for row in chosen])
    return {
        "outputs": outputs,
        "labels": labels,
        "chosen": chosen,
        "predictions": predictions,
        "correct": (chosen == labels).all(axis=1),
    }


def figures(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return F1 over all classes, the mean F1 of classes that are predicted or are labels, and the fraction of right rows."""
    chosen, labels = rows["chosen"], rows["labels"]
    hits = (chosen & labels).sum(axis=0)
    total = chosen.sum(axis=0) + labels.sum(axis=0)
    seen = total > 0
    return {
        "micro_f1": float(2 * hits.sum() / max(total.sum(), 1)),
        "macro_f1": float((2 * hits[seen] / total[seen]).mean()) if seen.any() else 0.0,
        "subset_accuracy": float(rows["correct"].mean()),
    }
