"""Held-out rows choose the ridge and whether a correction is taken; then all rows may fit it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.prune import Correction, Evidence, Moments, residual, solve_weights
from compressor.prune.fitting import RIDGES, STRONG_RIDGES, best_correction, corrected_inputs
from compressor.testing import tiny_model
from compressor_plugins.families.bert import Bert

COLUMNS, OUTPUTS = 7, 4
GROUP = Bert().groups(tiny_model())[1]


def moments(seed: int, *, noise: float, rows: int = 40, sign: float = 1.0) -> Moments:
    """Return moments of errors that are linear in the activations, and noise."""
    shared = torch.Generator().manual_seed(99)
    truth = torch.randn(OUTPUTS, COLUMNS, generator=shared, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, COLUMNS, generator=generator, dtype=torch.float64) + 0.5
    e = sign * (a @ truth.T + 1) + noise * torch.randn(rows, OUTPUTS, generator=generator, dtype=torch.float64)
    found = Moments(COLUMNS, OUTPUTS, torch.device("cpu"))
    found.add(a, e, torch.ones(rows))
    return found


def evidence(*, noise: float = 0.5, sign: float = 1.0) -> Evidence:
    return Evidence(moments(0, noise=noise), moments(1, noise=noise, sign=sign, rows=30))


def weight() -> Tensor:
    return torch.randn(OUTPUTS, COLUMNS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def assert_equal(found: Correction | None, expected: Correction) -> None:
    assert found is not None
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)


@pytest.mark.parametrize("noise", [0.1, 3.0])
@pytest.mark.parametrize("whole", [False, True])
def test_the_chosen_ridge_is_fitted_to_all_rows_only_where_that_is_asked(*, noise: float, whole: bool) -> None:
    given = evidence(noise=noise)
    correction, fit = best_correction(GROUP, "weights", weight(), given, whole=whole)
    errors = {
        ridge: residual(given.held, solve_weights(given.train, ridge=ridge))
        for ridge in (STRONG_RIDGES if whole else RIDGES)
    }
    assert fit.ridge == min(errors, key=errors.__getitem__)
    assert fit.error_after == errors[fit.ridge]  # judged by rows that did not fit it, either way
    assert fit.error_before == residual(given.held)
    assert_equal(correction, solve_weights(given.train + given.held if whole else given.train, ridge=fit.ridge))
    assert not torch.equal(
        solve_weights(given.train, ridge=fit.ridge).weight,
        solve_weights(given.train + given.held, ridge=fit.ridge).weight,
    )


@pytest.mark.parametrize("whole", [False, True])
def test_an_emptied_sublayers_bias_is_the_mean_of_the_rows_that_fit_it(*, whole: bool) -> None:
    train, held = moments(0, noise=0.5), moments(1, noise=0.5, rows=30)
    none = torch.zeros(0, dtype=torch.int64)
    empty = Evidence(*(each.kept(none, torch.zeros(OUTPUTS, COLUMNS)) for each in (train, held)))
    correction, fit = best_correction(GROUP, "weights", torch.zeros(OUTPUTS, 0), empty, whole=whole)
    assert fit.accepted == "bias"
    expected = (train.errors + held.errors) / 70 if whole else train.errors / 40
    assert correction is not None
    torch.testing.assert_close(correction.bias, expected)


@pytest.mark.parametrize("whole", [False, True])
def test_what_harms_held_out_rows_is_not_taken(*, whole: bool) -> None:
    given = evidence(sign=-1.0)
    correction, fit = best_correction(GROUP, "weights", weight(), given, whole=whole)
    assert correction is None
    assert (fit.accepted, fit.ridge, fit.error_after) == ("none", None, fit.error_before)
    correction, fit = corrected_inputs(GROUP, given)
    assert correction is None
    assert (fit.accepted, fit.ridge, fit.error_after) == ("none", None, fit.error_before)


def test_inputs_are_corrected_by_what_all_rows_say_at_the_ridge_that_held_out_rows_choose() -> None:
    given = evidence(noise=1.0)
    correction, fit = corrected_inputs(GROUP, given)
    errors = {ridge: residual(given.held, solve_weights(given.train, ridge=ridge)) for ridge in STRONG_RIDGES}
    assert (fit.group, fit.accepted, fit.error_after) == (GROUP.name, "weights", min(errors.values()))
    assert fit.ridge is not None
    assert_equal(correction, solve_weights(given.train + given.held, ridge=fit.ridge))


def test_without_held_out_rows_the_fitted_ones_judge() -> None:
    given = Evidence(moments(0, noise=0.5), Moments(COLUMNS, OUTPUTS, torch.device("cpu")))
    for correction, fit in (
        best_correction(GROUP, "weights", weight(), given, whole=True),
        corrected_inputs(GROUP, given),
    ):
        assert fit.error_before == residual(given.train)
        assert fit.ridge == STRONG_RIDGES[0]
        assert_equal(correction, solve_weights(given.train, ridge=STRONG_RIDGES[0]))


def test_moments_add_up_to_those_of_both_sets_of_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    a, e = (torch.randn(20, size, generator=generator, dtype=torch.float64) for size in (COLUMNS, OUTPUTS))
    weights = torch.rand(20, generator=generator)
    parts = [Moments(COLUMNS, OUTPUTS, torch.device("cpu")) for _ in range(3)]
    for each, rows in zip(parts, (slice(0, 20), slice(0, 8), slice(8, 20)), strict=True):
        each.add(a[rows], e[rows], weights[rows])
    both = parts[1] + parts[2]
    for name in ("weight", "squared", "activations", "errors", "gram", "cross"):
        found, expected = (torch.as_tensor(getattr(each, name)) for each in (both, parts[0]))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert parts[1].weight < both.weight


def test_without_a_bias_the_weights_alone_are_fitted_and_an_emptied_sublayer_is_left() -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(40, COLUMNS, generator=generator, dtype=torch.float64) + 0.5
    e = torch.randn(40, OUTPUTS, generator=generator, dtype=torch.float64) + 1
    found = Moments(COLUMNS, OUTPUTS, torch.device("cpu"), intercept=False)
    found.add(a, e, torch.ones(40))
    correction = solve_weights(found + Moments(COLUMNS, OUTPUTS, torch.device("cpu"), intercept=False), ridge=0)
    torch.testing.assert_close(correction.weight, torch.linalg.lstsq(a, e).solution.T)
    assert not correction.bias.any()
    none = torch.zeros(0, dtype=torch.int64)
    empty = found.kept(none, torch.zeros(OUTPUTS, COLUMNS))
    assert best_correction(GROUP, "weights", torch.zeros(OUTPUTS, 0), Evidence(empty, empty))[0] is None
