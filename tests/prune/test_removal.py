from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import CompressorError
from compressor.prune import Removal, removal, remove_units

UNITS = 6
OUTPUTS = 5
WIDTHS = pytest.mark.parametrize("width", [1, 4], ids=["neurons", "heads"])
RIDGES = pytest.mark.parametrize("ridge", [0.0, 1e-2])
STEPS = pytest.mark.parametrize("counts", [[5, 4, 3, 2, 1, 0], [4, 1, 0], [2, 0], [0]])


def problem(width: int, *, rows: int = 90, units: int = UNITS) -> tuple[Tensor, Tensor]:
    """Return correlated inputs, shape (rows, columns), and an output matrix, shape (D, columns)."""
    generator = torch.Generator().manual_seed(width)
    columns = units * width
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(rows, columns, generator=generator, dtype=torch.float64) @ (
        mix + 2 * torch.eye(columns, dtype=torch.float64)
    )
    return inputs, torch.randn(OUTPUTS, columns, generator=generator, dtype=torch.float64)


def removed(inputs: Tensor, weight: Tensor, width: int, counts: list[int], ridge: float) -> Removal:
    return remove_units(inputs.T @ inputs, weight.T, width=width, counts=counts, ridge=ridge)


def columns_of(units: Tensor, width: int) -> NDArray[np.bool_]:
    return units.repeat_interleave(width).numpy()


def refitted(inputs: Tensor, weight: Tensor, stay: NDArray[np.bool_], ridge: float) -> tuple[Tensor, float]:
    """Return what least squares on the survivors gives, shape (D, kept), and its squared error.

    A ridge is rows of data: it asks the sum of all columns' outputs at the axes to be what it was.
    """
    gram = inputs.T @ inputs
    axes = (ridge * gram.diagonal().mean()).sqrt() * torch.eye(len(gram), dtype=torch.float64)
    design = torch.cat([inputs, axes]).numpy()
    wanted = design @ weight.numpy().T
    solution = np.linalg.lstsq(design[:, stay], wanted, rcond=None)[0]
    left = wanted - design[:, stay] @ solution
    return torch.from_numpy(solution.T), float((left**2).sum())


@pytest.fixture(autouse=True)
def _as_many_units_a_step_as_levels_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "STEP", 1.0)


@WIDTHS
@RIDGES
@STEPS
def test_losses_and_updates_equal_least_squares_on_the_survivors(width: int, ridge: float, counts: list[int]) -> None:
    inputs, weight = problem(width)
    found = removed(inputs, weight, width, counts, ridge)
    assert found.counts == (UNITS, *counts)
    assert found.losses[0] == 0.0
    for count, loss in zip(found.counts[1:], found.losses[1:], strict=True):
        expected, error = refitted(inputs, weight, columns_of(found.keep(count), width), ridge)
        assert loss == pytest.approx(error, rel=1e-10)
        torch.testing.assert_close(found.updated(weight, count), expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(found.updated(weight, UNITS), weight)


@WIDTHS
def test_a_unit_at_a_time_goes_the_one_whose_removal_costs_least(width: int) -> None:
    inputs, weight = problem(width)
    found = removed(inputs, weight, width, list(range(UNITS))[::-1], 1e-2)
    for count in range(1, UNITS + 1):
        stay = found.keep(count)
        costs = {}
        for unit in stay.nonzero().flatten().tolist():
            fewer = stay.clone()
            fewer[unit] = False
            costs[unit] = refitted(inputs, weight, columns_of(fewer, width), 1e-2)[1]
        assert min(costs, key=costs.__getitem__) == int(found.order[UNITS - count])


@WIDTHS
def test_several_units_a_step_go_in_the_order_of_what_each_alone_costs(width: int) -> None:
    inputs, weight = problem(width)
    found = removed(inputs, weight, width, [3, 0], 1e-2)
    every = torch.ones(UNITS, dtype=torch.bool)
    alone = [
        refitted(inputs, weight, columns_of(every & (torch.arange(UNITS) != unit), width), 1e-2)[1]
        for unit in range(UNITS)
    ]
    assert found.order[:3].tolist() == sorted(range(UNITS), key=alone.__getitem__)[:3]


@WIDTHS
@pytest.mark.parametrize("dead", [0.0, 0.1, 0.5, 1.0])
def test_the_downdated_inverse_is_the_inverse_of_the_sub_matrix(
    width: int, dead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "DEAD", dead)
    seen: list[tuple[Tensor, Tensor]] = []
    most: list[int] = []
    remove = removal._Left.remove

    def spy(self: removal._Left, gone: Tensor) -> float:
        loss = remove(self, gone)
        stay = self.stays.repeat_interleave(width)
        seen.append((self.places[self.stays], self.inverse[stay][:, stay]))
        most.append(len(self.places))
        return loss

    monkeypatch.setattr(removal._Left, "remove", spy)
    inputs, weight = problem(width)
    found = removed(inputs, weight, width, [5, 3, 1, 0], 1e-2)
    gram = inputs.T @ inputs
    gram += 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    torch.testing.assert_close(found.gram, gram)
    assert [len(units) for units, _ in seen] == [5, 3, 1, 0]
    assert most == {0.0: [5, 3, 1, 0], 0.1: [5, 3, 1, 0], 0.5: [6, 6, 1, 0], 1.0: [6, 6, 6, 6]}[dead]
    for units, inverse in seen:
        stay = torch.isin(torch.arange(UNITS), units).repeat_interleave(width)
        torch.testing.assert_close(inverse, torch.linalg.inv(gram[stay][:, stay]), rtol=1e-9, atol=1e-12)


@WIDTHS
@STEPS
def test_masks_are_nested_and_every_unit_goes_once(width: int, counts: list[int]) -> None:
    found = removed(*problem(width), width, counts, 1e-2)
    assert sorted(found.order.tolist()) == list(range(UNITS))
    masks = [found.keep(count) for count in range(UNITS + 1)]
    assert [int(mask.sum()) for mask in masks] == list(range(UNITS + 1))
    for smaller, larger in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()
    assert list(found.losses) == sorted(found.losses)


@WIDTHS
def test_errors_count_in_the_coordinates_that_outputs_are_given_in(width: int) -> None:
    inputs, weight = problem(width)
    root = torch.diag(torch.tensor([3.0, 0.0, 0.5, 1.0, 0.0], dtype=torch.float64))
    found = remove_units(inputs.T @ inputs, weight.T @ root, width=width, counts=[3, 0], ridge=0.0)
    expected, _ = refitted(inputs, weight, columns_of(found.keep(3), width), 0.0)
    stay = columns_of(found.keep(3), width)
    errors = (inputs @ weight.T - inputs[:, torch.from_numpy(stay)] @ expected.T) @ root
    assert found.losses[1] == pytest.approx(float(errors.square().sum()), rel=1e-10)


@WIDTHS
def test_a_duplicated_unit_goes_first_and_costs_nothing(width: int) -> None:
    inputs, weight = problem(width)
    inputs[:, 4 * width : 5 * width] = inputs[:, width : 2 * width]
    weight[:, 4 * width : 5 * width] *= 5  # large enough to stay, did it not have a twin
    found = removed(inputs, weight, width, [5, 4, 3, 2, 1, 0], 1e-10)
    assert int(found.order[0]) in {1, 4}
    assert found.losses[1] < 1e-7 * found.losses[2]
    stay = torch.from_numpy(columns_of(found.keep(5), width))
    given = inputs[:, stay] @ found.updated(weight, 5).T
    torch.testing.assert_close(given, inputs @ weight.T, rtol=1e-6, atol=1e-6)


@WIDTHS
def test_a_unit_without_output_goes_first_and_costs_nothing(width: int) -> None:
    inputs, _ = problem(width)
    weight = torch.rand(OUTPUTS, UNITS * width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    weight[:, 3 * width : 4 * width] = 0
    found = removed(inputs, weight, width, [5, 4, 3, 2, 1, 0], 1e-2)
    assert int(found.order[0]) == 3
    assert found.losses[1] == 0.0
    assert found.losses[2] > 0.0
    stay = torch.from_numpy(columns_of(found.keep(5), width))
    assert torch.equal(found.updated(weight, 5), weight[:, stay])


@WIDTHS
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_gram_without_full_rank_gives_finite_losses_and_updates(width: int, rows: int) -> None:
    inputs, weight = problem(width, rows=rows)
    found = removed(inputs, weight, width, [5, 3, 1, 0], 1e-3)
    assert np.isfinite(found.losses).all()
    for count in found.counts:
        assert torch.isfinite(found.updated(weight, count)).all()
    _, error = refitted(inputs, weight, columns_of(found.keep(3), width), 1e-3)
    if rows:
        assert found.losses[2] == pytest.approx(error, rel=1e-6)


@WIDTHS
def test_one_unit_after_the_other_stays_accurate_where_a_gram_lacks_half_its_rank(width: int) -> None:
    inputs, weight = problem(width, rows=30 * width, units=60)
    found = removed(inputs, weight, width, list(range(60))[::-1], 1e-6)
    assert list(found.losses) == sorted(found.losses)
    for count in (40, 29, 10, 0):
        _, error = refitted(inputs, weight, columns_of(found.keep(count), width), 1e-6)
        assert found.losses[60 - count] == pytest.approx(error, rel=1e-3)


@WIDTHS
@pytest.mark.parametrize("dead", [0.0, 0.3, 1.0])
def test_orders_and_losses_do_not_depend_on_when_matrices_are_cut_down(
    width: int, dead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, weight = problem(width, units=20)
    counts = list(range(20))[::-1]
    expected = removed(inputs, weight, width, counts, 1e-2)
    monkeypatch.setattr(removal, "DEAD", dead)
    found = removed(inputs, weight, width, counts, 1e-2)
    assert torch.equal(found.order, expected.order)
    assert found.losses == pytest.approx(expected.losses, rel=1e-10)


@WIDTHS
def test_errors_that_nothing_feels_cost_nothing(width: int) -> None:
    inputs, _ = problem(width)
    blind = torch.zeros(UNITS * width, 0, dtype=torch.float64)
    found = remove_units(inputs.T @ inputs, blind, width=width, counts=[3, 0], ridge=1e-2)
    assert found.losses == (0.0, 0.0, 0.0)
    assert sorted(found.order.tolist()) == list(range(UNITS))


@pytest.mark.parametrize("broken", ["gram", "outputs"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_moments_that_are_not_finite_are_an_error(broken: str, value: float) -> None:
    inputs, weight = problem(1)
    given = {"gram": inputs.T @ inputs, "outputs": weight.T.clone()}
    given[broken][2, 1] = value
    with pytest.raises(CompressorError, match="not finite"):
        remove_units(given["gram"], given["outputs"], width=1, counts=[0], ridge=1e-2)


def test_moments_in_single_precision_are_taken_in_double() -> None:
    inputs, weight = problem(1)
    found = remove_units((inputs.T @ inputs).float(), weight.T.float(), width=1, counts=[3, 0], ridge=1e-2)
    assert found.gram.dtype == torch.float64
    assert found.losses[1] == pytest.approx(removed(inputs, weight, 1, [3, 0], 1e-2).losses[1], rel=1e-4)


@WIDTHS
def test_a_gram_that_rounding_left_indefinite_gets_a_larger_ridge(width: int) -> None:
    inputs, weight = problem(width)
    gram = inputs.T @ inputs
    gram -= 2 * torch.linalg.eigvalsh(gram)[0] * torch.eye(len(gram), dtype=torch.float64)
    found = remove_units(gram, weight.T, width=width, counts=[3, 0], ridge=1e-9)
    assert float(torch.linalg.eigvalsh(gram)[0]) < 0 < float(torch.linalg.eigvalsh(found.gram)[0])
    assert np.isfinite(found.losses).all()
    assert torch.isfinite(found.updated(weight, 3)).all()
