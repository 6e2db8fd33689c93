"""Bootstrap intervals: the only statistics that verification needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

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


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947): the binomial test that changes go either way alike.

    Args:
        lost: rows that were right and are wrong.
        gained: rows that were wrong and are right.
    """
    from scipy.stats import binomtest  # half a second, which only those who verify wait for

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def ratio_of_medians(
    numerator: np.ndarray,
    denominator: np.ndarray,
    resampling: Resampling = DEFAULT,
    *,
    loads: np.ndarray | None = None,
) -> Interval:
    """Return median(numerator) / median(denominator) over rounds, both (n,), and its paired bootstrap interval.

    Args:
        numerator: one value a round.
        denominator: the same rounds.
        resampling: how.
        loads: number of the load of the model that each round belongs to, shape (n,). Rounds of one load share its
            placement in memory, so loads are drawn first and rounds inside them (two-stage bootstrap, Davison and
            Hinkley 1997, section 3.8); without it rounds count as independent, which is too sure of itself.
    """
    one_load = np.zeros(len(numerator), dtype=np.int64)
    draws = _redrawn(tuple((one_load if loads is None else loads).tolist()), resampling)
    ratios = [np.median(numerator[part], axis=1) / np.median(denominator[part], axis=1) for part in draws]
    tail = 50.0 * (1.0 - resampling.confidence)
    lower, upper = np.percentile(np.concatenate(ratios), [tail, 100.0 - tail])
    value = float(np.median(numerator) / np.median(denominator))
    return Interval(value, float(lower), float(upper), resampling.confidence)


@lru_cache(maxsize=8)
def _redrawn(loads: tuple[int, ...], resampling: Resampling) -> tuple[np.ndarray, ...]:
    """Return what ``redrawn_rounds`` yields, those of one length together: a matrix each. All ratios of a run share them."""
    drawn = sorted(redrawn_rounds(np.array(loads), resampling), key=len)
    return tuple(np.stack(list(part)) for _, part in groupby(drawn, key=len))


def redrawn_rounds(loads: np.ndarray, resampling: Resampling = DEFAULT) -> Iterator[np.ndarray]:
    """Yield, for every resample, the numbers of the drawn rounds: loads first, then rounds inside them.

    Args:
        loads: number of the load that each round belongs to, shape (rounds,).
        resampling: how.
    """
    generator = np.random.default_rng(resampling.seed)
    members = [np.flatnonzero(loads == one) for one in np.unique(loads)]
    for _ in range(resampling.resamples):
        drawn = generator.integers(0, len(members), len(members))
        yield np.concatenate([generator.choice(members[one], len(members[one])) for one in drawn])
