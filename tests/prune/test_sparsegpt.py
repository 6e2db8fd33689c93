from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.model import Blocks
from compressor.prune import Selection, Surgery, prune_weight, select_masks

CUTS = {
    "1x1": Blocks(1, 1, 1),
    "4x1": Blocks(4, 1, 4),
    "1x4": Blocks(1, 4, 4),
    "2:4": Blocks(1, 4, 2),
    "keep 1 of 4": Blocks(1, 4, 3),
}
EACH = pytest.mark.parametrize("blocks", CUTS.values(), ids=CUTS)


def problem(rows: int = 8, columns: int = 24, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a weight and inputs, correlated, shapes (out, in) and (tokens, in)."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) + 2 * torch.eye(columns)
    return torch.randn(rows, columns, generator=generator), torch.randn(200, columns, generator=generator) @ mix


def pruned(weight: Tensor, hessian: Tensor, blocks: Blocks, sparsity: float, **options: Any) -> tuple[Tensor, Tensor]:
    return prune_weight(weight, hessian, Surgery(blocks=blocks, sparsity=sparsity, **options))


@EACH
@pytest.mark.parametrize("columns", [8, 16, 128])
def test_with_white_inputs_the_smallest_go_and_the_others_do_not_change(blocks: Blocks, columns: int):
    weight, _ = problem()
    sparsity = blocks.dropped / blocks.size if blocks.partial else 0.5
    new, mask = pruned(weight, torch.eye(24) * 7, blocks, sparsity, columns=columns)
    assert torch.equal(new, weight * mask)
    for start in range(0, 24, columns):
        part = {"w": weight[:, start : start + columns].square()}
        expected = select_masks(part, {"w": blocks}, sparsity, Selection(reduction="sum")).keep["w"]
        assert torch.equal(mask[:, start : start + columns], expected)


@EACH
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("columns", [5, 16, 128])
def test_the_count_is_exact(blocks: Blocks, sparsity: float, columns: int):
    weight, inputs = problem()
    new, mask = pruned(weight, inputs.T @ inputs, blocks, sparsity, columns=columns)
    assert abs(int((~mask).sum()) - sparsity * 192) <= blocks.dropped / 2
    assert blocks.holds(mask)
    assert torch.equal(new == 0, ~mask)


def test_every_column_is_corrected_as_the_closed_form_says():
    """One row, one weight gone: optimal brain surgeon with the columns to its left frozen."""
    weight, inputs = problem(rows=1, columns=6)
    hessian = (inputs.T @ inputs).double()
    gone = 2
    light = weight.clone()
    light[0, gone] = 1e-6 * weight[0, gone]
    new, mask = pruned(light, hessian, CUTS["1x1"], 1 / 6, damping=1e-9)
    assert (~mask).nonzero().tolist() == [[0, gone]]
    free = list(range(gone + 1, 6))
    error = light.double()[:, gone]
    expected = light.double()[0, free] + torch.linalg.solve(hessian[free][:, free], hessian[free, gone] * error)
    torch.testing.assert_close(new[0, free].double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(new[0, :gone], light[0, :gone])


@EACH
def test_the_output_changes_less_than_without_correction(blocks: Blocks):
    weight, inputs = problem()
    new, mask = pruned(weight, inputs.T @ inputs, blocks, 0.5)

    def error(other: Tensor) -> float:
        return float((inputs @ (other - weight).T).square().sum())

    assert error(new) < 0.7 * error(weight * mask)


def test_steps_of_columns_pass_their_errors_on():
    """One weight to go, in the first step of four columns: all columns behind it are corrected."""
    weight, inputs = problem(rows=1, columns=8)
    weight[0, 1] = 0.01
    whole, _ = pruned(weight, inputs.T @ inputs, CUTS["1x1"], 1 / 8, columns=8)
    steps, mask = pruned(weight, inputs.T @ inputs, CUTS["1x1"], 1 / 8, columns=4)
    assert (~mask).nonzero().tolist() == [[0, 1]]
    torch.testing.assert_close(steps, whole)
    assert not torch.equal(steps[0, 4:], weight[0, 4:])


def test_inputs_that_are_always_zero_lose_their_weights_first():
    weight, inputs = problem()
    inputs[:, [3, 17]] = 0
    new, mask = pruned(weight, inputs.T @ inputs, CUTS["1x1"], 2 / 24, damping=1e-9)
    assert not mask[:, [3, 17]].any()
    assert new.isfinite().all()


def test_inputs_that_are_no_numbers_are_refused():
    weight, inputs = problem()
    with pytest.raises(CompressorError, match="cannot be factored"):
        pruned(weight, (inputs.T @ inputs) * torch.nan, CUTS["1x1"], 0.5)
