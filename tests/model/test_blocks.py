from __future__ import annotations

import pytest
import torch

from compressor.model import Blocks

SHAPE = (8, 12)
CUTS = {
    "1x1": Blocks(1, 1, 1),
    "4x1": Blocks(4, 1, 4),
    "1x4": Blocks(1, 4, 4),
    "2x3": Blocks(2, 3, 6),
    "row": Blocks(1, 12, 12),
    "column": Blocks(8, 1, 8),
    "2:4": Blocks(1, 4, 2),
}


def numbered() -> torch.Tensor:
    return torch.arange(96.0).reshape(SHAPE)


@pytest.mark.parametrize("blocks", CUTS.values(), ids=CUTS)
def test_a_view_goes_back_to_the_weight(blocks: Blocks):
    view = blocks.view(numbered())
    assert view.shape == (96 // blocks.size, blocks.size)
    assert torch.equal(blocks.unview(view, SHAPE), numbered())


def test_a_block_is_rows_by_columns():
    assert CUTS["4x1"].view(numbered())[1].tolist() == [1, 13, 25, 37]
    assert CUTS["1x4"].view(numbered())[1].tolist() == [4, 5, 6, 7]
    assert CUTS["2x3"].view(numbered())[4].tolist() == [24, 25, 26, 36, 37, 38]


@pytest.mark.parametrize(("how", "expected"), [("mean", 2.5), ("sum", 10.0), ("max", 4.0)])
def test_scores_are_reduced_over_the_block(how: str, expected: float):
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert Blocks(1, 4, 4).reduce(scores, how).tolist() == [expected]  # type: ignore[arg-type]


def test_a_run_of_n_m_counts_what_would_go():
    assert CUTS["2:4"].reduce(torch.tensor([[9.0, 1.0, 2.0, 7.0]]), "sum").tolist() == [3.0]


def test_two_of_four_keeps_positions_0_and_3():
    weight = torch.tensor([[0.9, -0.1, 0.2, -0.8]])
    mask = CUTS["2:4"].expand(torch.tensor([True]), weight.abs())
    assert mask.tolist() == [[True, False, False, True]]


def test_equal_scores_go_in_order():
    assert CUTS["2:4"].expand(torch.tensor([True]), torch.ones(1, 4)).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("blocks", CUTS.values(), ids=CUTS)
def test_removed_blocks_lose_all_that_goes_and_others_nothing(blocks: Blocks):
    removed = torch.arange(96 // blocks.size) % 3 == 0
    mask = blocks.expand(removed, numbered())
    gone = (~blocks.view(mask)).sum(dim=1)
    assert gone.tolist() == [blocks.dropped if goes else 0 for goes in removed]
    assert blocks.holds(mask)
    if blocks.size > 1:
        mask[0, 0] = ~mask[0, 0]
        assert not blocks.holds(mask)
