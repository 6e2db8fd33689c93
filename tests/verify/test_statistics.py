from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compressor.verify.statistics import Resampling, bootstrap, ratio_of_medians


def test_interval_of_a_mean_matches_the_normal_closed_form():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=4000)
    interval = bootstrap(lambda rows: float(values[rows].mean()), len(values), Resampling(0.95, 4000, 1))
    error = values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.lower == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.upper == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_interval_matches_scipy(confidence: float):
    generator = np.random.default_rng(2)
    dense = generator.normal(size=300)
    compressed = dense + generator.normal(-0.1, 0.3, size=300)
    ours = bootstrap(
        lambda rows: float(np.mean(compressed[rows]) - np.mean(dense[rows])), 300, Resampling(confidence, 5000, 0)
    )
    theirs = stats.bootstrap(
        (compressed, dense),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        method="percentile",
        confidence_level=confidence,
        n_resamples=5000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.lower == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.upper == pytest.approx(theirs.high, abs=0.05 * width)


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (
        bootstrap(lambda rows: float(values[rows].mean()), 50, Resampling(seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_ratio_of_medians_of_proportional_rounds_is_exact():
    rounds = np.random.default_rng(0).uniform(1, 5, size=20)
    interval = ratio_of_medians(0.6 * rounds, rounds)
    assert (interval.value, interval.lower, interval.upper) == pytest.approx((0.6, 0.6, 0.6))


def test_ratio_of_medians_covers_the_true_ratio_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        dense, compressed = generator.lognormal(0, 0.1, 25), 0.5 * generator.lognormal(0, 0.1, 25)
        interval = ratio_of_medians(compressed, dense, Resampling(0.9, 200))
        covered += interval.lower <= 0.5 <= interval.upper
    assert 0.85 <= covered / 100 <= 0.98


def test_rounds_that_share_a_load_give_a_wider_interval_than_independent_ones():
    generator = np.random.default_rng(0)
    loads = np.repeat(np.arange(5), 3)
    base = np.ones(15)
    mine = 0.6 * (1 + 0.02 * generator.standard_normal(5)[loads] + 0.002 * generator.standard_normal(15))
    by_load, by_round = ratio_of_medians(mine, base, loads=loads), ratio_of_medians(mine, base)
    assert by_load.value == by_round.value
    assert by_load.upper - by_load.lower > by_round.upper - by_round.lower
