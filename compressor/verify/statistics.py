"""Bootstrap intervals: the only statistics that verification needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A measured value and where resampling puts it.

    Attributes:
        value: as observed.
        lower: end of the interval.
        upper: end of the interval.
        confidence: e.g. 0.95.
    """

    value: float
    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        confidence: in (0, 1).
        resamples: how often rows are drawn with replacement.
        seed: of the draws.
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


DEFAULT = Resampling()


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, resampling: Resampling = DEFAULT) -> Interval:
    """Return a percentile bootstrap interval (Efron 1979, https://doi.org/10.1214/aos/1176344552).

    A statistic of two models on the same rows is *paired* by reading both at the same row numbers.

    Args:
        statistic: of the rows whose numbers, shape (n,), it is given.
        n: number of rows.
        resampling: how.
    """
    generator = np.random.default_rng(resampling.seed)
    draws = [statistic(generator.integers(0, n, n)) for _ in range(resampling.resamples)]
    tail = 50.0 * (1.0 - resampling.confidence)
    lower, upper = np.percentile(draws, [tail, 100.0 - tail])
    return Interval(statistic(np.arange(n)), float(lower), float(upper), resampling.confidence)


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray, resampling: Resampling = DEFAULT) -> Interval:
    """Return median(numerator) / median(denominator) over rounds, both (n,), and its paired bootstrap interval."""
    return bootstrap(
        lambda rounds: float(np.median(numerator[rounds]) / np.median(denominator[rounds])),
        len(numerator),
        resampling,
    )
