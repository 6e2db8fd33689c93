from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.prune import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

TOKENS, COLUMNS, OUTPUTS, WIDTH = 60, 12, 5, 3


def sample(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return activations, errors, token weights and an output matrix."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(TOKENS, COLUMNS) + 0.5, draw(TOKENS, OUTPUTS) - 0.3, draw(TOKENS).abs(), draw(OUTPUTS, COLUMNS)


def moments_of(activations: Tensor, errors: Tensor, weights: Tensor) -> Moments:
    moments = Moments(activations.shape[1], errors.shape[1], torch.device("cpu"))
    for part in (slice(0, 7), slice(7, 40), slice(40, None)):
        moments.add(activations[part], errors[part], weights[part])
    return moments


def explicit_residual(activations: Tensor, errors: Tensor, weights: Tensor, correction: Correction) -> float:
    left = errors - activations @ correction.weight.T - correction.bias
    return float((weights * left.square().sum(dim=1)).sum() / weights.sum())


def test_weights_and_bias_equal_least_squares_on_the_explicit_design() -> None:
    activations, errors, weights, _ = sample()
    root = weights.sqrt().unsqueeze(1)
    design = torch.cat([activations, torch.ones(TOKENS, 1, dtype=torch.float64)], dim=1)
    expected = np.linalg.lstsq((design * root).numpy(), (errors * root).numpy(), rcond=None)[0]
    found = solve_weights(moments_of(activations, errors, weights), ridge=0.0)
    np.testing.assert_allclose(found.weight.T.numpy(), expected[:COLUMNS], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.bias.numpy(), expected[COLUMNS], rtol=1e-8, atol=1e-10)


def test_ridge_pulls_toward_the_present_weights() -> None:
    activations, errors, weights, _ = sample()
    moments = moments_of(activations, errors, weights)
    ridge = 0.3
    share = weights.unsqueeze(1) / weights.sum()
    centred = (activations - (share * activations).sum(dim=0)) * weights.sqrt().unsqueeze(1)
    root = (ridge * float(centred.square().sum(dim=0).mean())) ** 0.5
    design = torch.cat([centred, root * torch.eye(COLUMNS, dtype=torch.float64)])
    right = torch.cat([errors * weights.sqrt().unsqueeze(1), torch.zeros(COLUMNS, OUTPUTS, dtype=torch.float64)])
    expected = np.linalg.lstsq(design.numpy(), right.numpy(), rcond=None)[0]
    found = solve_weights(moments, ridge=ridge)
    np.testing.assert_allclose(found.weight.T.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("width", [1, WIDTH])
def test_scales_equal_least_squares_on_the_explicit_design(width: int) -> None:
    activations, errors, weights, matrix = sample(1)
    units = COLUMNS // width
    per_unit = torch.stack(
        [activations[:, u * width : (u + 1) * width] @ matrix[:, u * width : (u + 1) * width].T for u in range(units)]
    )
    root = weights.sqrt().unsqueeze(1)
    design = (per_unit * root).permute(1, 2, 0).reshape(TOKENS * OUTPUTS, units)
    expected = np.linalg.lstsq(design.numpy(), (errors * root).reshape(-1).numpy(), rcond=None)[0]
    found = solve_scales(moments_of(activations, errors, weights), matrix, width=width, ridge=0.0)
    change = np.repeat(expected, width)
    np.testing.assert_allclose(found.weight.numpy(), matrix.numpy() * change, rtol=1e-8, atol=1e-10)
    assert not found.bias.any()


SOLVERS: dict[str, Callable[[Moments, Tensor], Correction]] = {
    "weights": lambda moments, _: solve_weights(moments, ridge=1e-2),
    "scales": lambda moments, matrix: solve_scales(moments, matrix, width=WIDTH, ridge=1e-2),
    "bias": lambda moments, _: solve_bias(moments),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_residual_from_moments_equals_the_explicit_one_and_falls(name: str) -> None:
    activations, errors, weights, matrix = sample(2)
    moments = moments_of(activations, errors, weights)
    correction = SOLVERS[name](moments, matrix)
    nothing = Correction(torch.zeros(OUTPUTS, COLUMNS, dtype=torch.float64), torch.zeros(OUTPUTS, dtype=torch.float64))
    before = explicit_residual(activations, errors, weights, nothing)
    after = explicit_residual(activations, errors, weights, correction)
    assert residual(moments) == pytest.approx(before, rel=1e-10)
    assert residual(moments, correction) == pytest.approx(after, rel=1e-10)
    assert after < before


@pytest.mark.parametrize("name", SOLVERS)
def test_no_error_gives_no_correction(name: str) -> None:
    activations, errors, weights, matrix = sample()
    correction = SOLVERS[name](moments_of(activations, 0 * errors, weights), matrix)
    assert not correction.weight.any()
    assert not correction.bias.any()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("case", ["duplicates", "zeros", "one token", "no token"])
def test_rank_deficient_moments_give_finite_corrections(name: str, case: str) -> None:
    activations, errors, weights, matrix = sample(3)
    if case == "duplicates":
        activations = activations[:, :1].repeat(1, COLUMNS)
    elif case == "zeros":
        activations = torch.zeros_like(activations)
    else:
        weights = torch.zeros_like(weights)
        weights[0] = 1.0 if case == "one token" else 0.0
    moments = moments_of(activations, errors, weights)
    correction = SOLVERS[name](moments, matrix)
    assert torch.isfinite(correction.weight).all()
    assert torch.isfinite(correction.bias).all()
    assert residual(moments, correction) <= residual(moments) + 1e-9


def test_solution_without_ridge_survives_duplicated_columns() -> None:
    activations, errors, weights, _ = sample(4)
    twins = torch.cat([activations, activations], dim=1)
    single = moments_of(activations, errors, weights)
    double = moments_of(twins, errors, weights)
    expected = residual(single, solve_weights(single, ridge=0.0))
    assert residual(double, solve_weights(double, ridge=0.0)) == pytest.approx(expected, rel=1e-4)


def test_an_emptied_sublayer_gets_the_mean_error_as_bias() -> None:
    _, errors, weights, _ = sample()
    correction = solve_bias(moments_of(torch.zeros(TOKENS, 0, dtype=torch.float64), errors, weights))
    torch.testing.assert_close(correction.bias, (weights.unsqueeze(1) * errors).sum(dim=0) / weights.sum())
    assert correction.weight.shape == (OUTPUTS, 0)


def test_activations_that_are_not_finite_are_an_error() -> None:
    activations, errors, weights, _ = sample()
    activations[3, 3] = float("nan")
    with pytest.raises(CompressorError, match="not finite"):
        solve_weights(moments_of(activations, errors, weights), ridge=1e-3)


@pytest.mark.parametrize("columns", [1, 127, 128, 129, 300])
@pytest.mark.parametrize("weighted", [True, False])
def test_moments_read_between_two_additions_are_the_explicit_sums(*, columns: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    a, e = (torch.randn(900, n, generator=generator) + 3 for n in (columns, OUTPUTS))
    weights = torch.rand(900, generator=generator) if weighted else torch.ones(900)
    moments = Moments(columns, OUTPUTS, torch.device("cpu"))
    for rows in (slice(0, 40), slice(40, 900)):
        moments.add(a[rows], e[rows], weights[rows])
        until = slice(0, rows.stop)
        x, y, w = a[until].double(), e[until].double(), weights[until].double().unsqueeze(1)
        expected = {
            "gram": x.T @ (w * x),
            "cross": x.T @ (w * y),
            "activations": (w * x).sum(0),
            "errors": (w * y).sum(0),
        }
        for name, value in expected.items():
            torch.testing.assert_close(getattr(moments, name), value, rtol=1e-5, atol=0)
        assert moments.squared == pytest.approx(float((w * y.square()).sum()), rel=1e-5)
        assert torch.equal(moments.gram, moments.gram.T)


def test_a_covariance_from_single_precision_products_is_that_of_double_precision() -> None:
    generator = torch.Generator().manual_seed(6)
    a = torch.randn(4000, 200, generator=generator) * torch.rand(200, generator=generator) + 1
    covariances = []
    for dtype in (torch.float32, torch.float64):
        moments = Moments(200, 0, torch.device("cpu"))
        for some in a.to(dtype).split(1500):
            moments.add(some, some[:, :0], torch.ones(len(some)))
        mean = moments.activations / moments.weight
        covariances.append(moments.gram / moments.weight - torch.outer(mean, mean))
    single, double = covariances
    assert float((single - double).norm()) < 1e-5 * float(double.norm())
    ridge = 1e-5 * float(single.diagonal().mean())
    assert float(torch.linalg.eigvalsh(single)[0]) > -ridge


def test_moments_of_kept_columns_equal_those_of_a_second_pass() -> None:
    generator = torch.Generator().manual_seed(3)
    a, e = (torch.randn(60, n, generator=generator, dtype=torch.float64) for n in (9, 5))
    weight = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    weights = torch.rand(60, generator=generator, dtype=torch.float64)
    kept = torch.tensor([0, 3, 4, 8])
    gone = torch.tensor([1, 2, 5, 6, 7])
    whole, again = Moments(9, 5, torch.device("cpu")), Moments(4, 5, torch.device("cpu"))
    whole.add(a, e, weights)
    again.add(a[:, kept], e + a[:, gone] @ weight[:, gone].T, weights)
    found = whole.kept(kept, weight)
    for name in ("weight", "activations", "errors", "gram", "cross", "squared"):
        torch.testing.assert_close(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(again, name)))


@pytest.mark.parametrize("kept", [[], list(range(4))])
def test_moments_of_no_and_of_all_columns(kept: list[int]) -> None:
    generator = torch.Generator().manual_seed(4)
    a, e, weight = (torch.randn(*shape, generator=generator) for shape in ((20, 4), (20, 3), (3, 4)))
    whole = Moments(4, 3, torch.device("cpu"))
    whole.add(a, e, torch.ones(20))
    found = whole.kept(torch.tensor(kept, dtype=torch.int64), weight)
    expected = e if kept else e + a @ weight.T
    assert found.squared == pytest.approx(float(expected.double().square().sum()), rel=1e-5)
    assert found.gram.shape == (len(kept), len(kept))
