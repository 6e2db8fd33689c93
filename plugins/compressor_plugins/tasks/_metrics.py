"""Metrics of predictions. A bootstrap calls them thousands of times, so those that counts give are counted here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import pearsonr, spearmanr

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of rows where the class (n,) is the label (n,)."""
    return float(np.mean(predicted == labels))


def f1_per_class(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return F1 of every class, shape (largest id + 1,); NaN for a class that is neither predicted nor a label."""
    size = int(max(predicted.max(), labels.max())) + 1
    hits = np.bincount(labels[predicted == labels], minlength=size)
    total = np.bincount(predicted, minlength=size) + np.bincount(labels, minlength=size)
    scores: np.ndarray = np.divide(2.0 * hits, total, out=np.full(size, np.nan), where=total > 0)
    return scores


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of class 1; 0 when it is neither predicted nor a label."""
    scores = f1_per_class(predicted, labels)
    return float(np.nan_to_num(scores[1])) if len(scores) > 1 else 0.0


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 of the classes that are predicted or are labels."""
    return float(np.nanmean(f1_per_class(predicted, labels)))


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the Matthews correlation of two classes (their Pearson correlation); 0 when one side is constant."""
    return _or_zero(lambda: float(np.corrcoef(predicted, labels)[0, 1]), predicted, labels)


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the linear correlation; 0 when one side is constant."""
    return _or_zero(lambda: float(pearsonr(predicted, labels).statistic), predicted, labels)


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the rank correlation; 0 when one side is constant."""
    return _or_zero(lambda: float(spearmanr(predicted, labels).statistic), predicted, labels)


def _or_zero(correlation: Callable[[], float], left: np.ndarray, right: np.ndarray) -> float:
    return 0.0 if np.ptp(left) == 0 or np.ptp(right) == 0 else correlation()


def negative_mse(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean squared error times -1, so that higher is better as of every metric."""
    return -float(np.mean((predicted - labels) ** 2))


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "negative_mse": negative_mse,
    "pearson": pearson,
    "spearman": spearman,
}
