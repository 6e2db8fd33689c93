from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.errors import InputError
from compressor.model import Blocks, Masks
from compressor.prune import Selection, cut_weights, partway, select_masks

ELEMENT, FOUR_BY_ONE, TWO_OF_FOUR = Blocks(1, 1, 1), Blocks(4, 1, 4), Blocks(1, 4, 2)


def drawn(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (8, 12), "b": (16, 8), "c": (4, 40)}
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def chosen(scores: dict[str, torch.Tensor], blocks: Blocks, sparsity: float, **options: Any) -> Masks:
    return select_masks(scores, dict.fromkeys(scores, blocks), sparsity, Selection(**options))


def ratios(masks: Masks) -> dict[str, float]:
    return {name: float((~mask).float().mean()) for name, mask in masks.keep.items()}


def test_six_of_twelve_blocks_go_and_rows_of_a_block_are_equal():
    (mask,) = chosen({"w": torch.rand(8, 6)}, FOUR_BY_ONE, 0.5).keep.values()
    assert int((~mask).sum()) == 24
    assert torch.equal(mask[0:1].expand(4, 6), mask[0:4])
    assert torch.equal(mask[4:5].expand(4, 6), mask[4:8])


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3333, 0.5, 0.9])
@pytest.mark.parametrize("blocks", [ELEMENT, FOUR_BY_ONE], ids=["1x1", "4x1"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_total_is_exact_to_the_block(sparsity: float, blocks: Blocks, scope: str):
    masks = chosen(drawn(), blocks, sparsity, scope=scope)
    for pool in [[name] for name in masks.keep] if scope == "local" else [list(masks.keep)]:
        gone = sum(int((~masks.keep[name]).sum()) for name in pool)
        wanted = sparsity * sum(masks.keep[name].numel() for name in pool)
        assert abs(gone - wanted) <= blocks.dropped / 2
    assert all(blocks.holds(mask) for mask in masks.keep.values())


def test_a_layer_of_large_weights_keeps_its_share_locally_and_all_of_it_globally():
    scores = drawn()
    scores["b"] = scores["b"] * 1000 + 10
    assert ratios(chosen(scores, ELEMENT, 0.5, scope="local")) == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    assert ratios(chosen(scores, ELEMENT, 0.5, scope="global"))["b"] == 0


def test_globally_a_layer_stops_at_its_bound_and_the_total_still_holds():
    scores = drawn()
    scores["a"] = scores["a"] / 1000
    found = chosen(scores, ELEMENT, 0.5, scope="global", maximum=0.98, minimum=0.3)
    assert int((~found.keep["a"]).sum()) == 94  # of 96: as near to 0.98 as it gets
    assert sum(int((~mask).sum()) for mask in found.keep.values()) == 192
    assert min(ratios(found).values()) >= 0.3


@pytest.mark.parametrize("sparsity", [0.0, 0.125, 0.25, 0.5])
@pytest.mark.parametrize("scope", ["local", "global", "row"])
def test_on_the_way_every_run_is_dense_or_two_of_four(sparsity: float, scope: str):
    scores = drawn() if scope != "row" else {"a": torch.rand(6, 32)}
    masks = chosen(scores, TWO_OF_FOUR, sparsity, scope=scope)
    zeros = torch.cat([(~TWO_OF_FOUR.view(mask)).sum(dim=1) for mask in masks.keep.values()])
    assert set(zeros.tolist()) <= {0, 2}
    assert int(zeros.sum()) == sparsity * sum(mask.numel() for mask in masks.keep.values())


@pytest.mark.parametrize("blocks", [Blocks(1, 4, 3), Blocks(1, 8, 4)], ids=["keep 1 of 4", "4:8"])
def test_at_the_end_every_run_is_n_of_m(blocks: Blocks):
    masks = chosen({"w": torch.rand(6, 32)}, blocks, blocks.dropped / blocks.size)
    assert (~blocks.view(masks.keep["w"])).sum(dim=1).unique().tolist() == [blocks.dropped]


def test_rows_reduce_scores_to_blocks_as_asked():
    scores = {"w": torch.tensor([[0.0, 6.0, 4.0, 4.0]])}
    kept = [chosen(scores, Blocks(1, 2, 2), 0.5, scope="row", reduction=how).keep["w"][0, 0] for how in ("mean", "max")]
    assert [bool(first) for first in kept] == [False, True]


def test_rows_lose_the_same_number():
    masks = chosen({"w": torch.rand(6, 32) * torch.arange(1.0, 7).unsqueeze(1)}, ELEMENT, 0.25, scope="row")
    assert (~masks.keep["w"]).sum(dim=1).tolist() == [8] * 6


def test_blocks_are_counted_where_that_is_asked():
    """60 % of the rows of a wide and a narrow weight are not 60 % of their elements."""
    generator = torch.Generator().manual_seed(0)
    scores = {"wide": torch.rand(10, 40, generator=generator) / 2, "narrow": torch.rand(10, 8, generator=generator)}
    layouts = {"wide": Blocks(1, 40, 40), "narrow": Blocks(1, 8, 8)}
    masks = select_masks(scores, layouts, 0.6, Selection(unit="blocks"))
    rows = {name: int((~mask).all(dim=1).sum()) for name, mask in masks.keep.items()}
    assert sum(rows.values()) == 12
    assert masks.sparsity > 0.7
    assert select_masks(scores, layouts, 0.6, Selection()).sparsity == pytest.approx(0.6, abs=20 / 480)


def test_whole_rows_and_whole_columns_go():
    weight = {"w": torch.rand(8, 12)}
    rows = chosen(weight, Blocks(1, 12, 12), 0.5).keep["w"]
    columns = chosen(weight, Blocks(8, 1, 8), 0.5).keep["w"]
    assert int((~rows).all(dim=1).sum()) == 4
    assert int(rows.all(dim=1).sum()) == 4
    assert int((~columns).all(dim=0).sum()) == 6
    assert int(columns.all(dim=0).sum()) == 6


def test_a_sparsity_out_of_bounds_is_refused():
    with pytest.raises(InputError, match="3 weights: 346 should go, the bounds"):
        chosen(drawn(), ELEMENT, 0.9, maximum=0.5)
    with pytest.raises(InputError, match="'a': 86 should go"):
        chosen(drawn(), TWO_OF_FOUR, 0.9, scope="local")


def test_a_minimum_is_due_at_the_end_of_the_ramp():
    ramp = Selection(minimum=0.5)
    assert ramp.at(0.0, final=0.8).minimum == 0
    assert ramp.at(0.4, final=0.8).minimum == 0.25
    assert ramp.at(0.8, final=0.8) == ramp


@pytest.mark.parametrize(("share", "gone"), [(0.0, 24), (0.25, 30), (0.5, 36), (1.0, 48)])
def test_partway_the_lowest_of_the_doomed_weights_are_gone(share: float, gone: int):
    scores = {"w": torch.rand(8, 12)}
    before, after = (chosen(scores, FOUR_BY_ONE, sparsity) for sparsity in (0.25, 0.5))
    found = partway(before, after, scores, share)
    assert int((~found.keep["w"]).sum()) == gone
    newly = before.keep["w"] & ~found.keep["w"]
    spared = found.keep["w"] & ~after.keep["w"]
    if share in {0.25, 0.5}:
        assert float(scores["w"][newly].max()) <= float(scores["w"][spared].min())
    if share == 1:
        assert found == after


def test_rows_of_a_block_are_partly_zero_partway():
    """What the seed's program never does: its scores are those of whole blocks."""
    scores = {"w": torch.rand(8, 12)}
    before, after = (chosen(scores, Blocks(1, 12, 12), sparsity) for sparsity in (0.0, 0.5))
    found = partway(before, after, scores, 0.5).keep["w"]
    assert bool((found.any(dim=1) & ~found.all(dim=1)).any())


def test_weights_that_do_not_divide_are_named():
    shapes = {"good": torch.zeros(8, 8), "odd": torch.zeros(8, 6), "kernel": torch.zeros(4, 4, 3, 3)}
    layouts, skipped = cut_weights(shapes, lambda shape: None if shape[1] % 4 else TWO_OF_FOUR)
    assert list(layouts) == ["good"]
    assert skipped["odd"] == "shape (8, 6) does not divide into blocks"
    assert list(skipped) == ["odd", "kernel"]
