from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.model.masks import Masks
from compressor.train.enforce import Enforced

KEEP = torch.tensor([[True, False, True], [False, True, False]])


def test_holding_masks_zeroes_at_once_and_nothing_else():
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    Enforced(model, Masks({"weight": KEEP}))
    assert torch.equal(model.weight, torch.where(KEEP, before, 0))


def test_neither_momentum_nor_weight_decay_revives_a_weight():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    enforced = Enforced(model, Masks({}))
    for step in range(8):
        if step == 4:  # after momentum was built up
            enforced.hold(Masks({"weight": KEEP}))
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        enforced.zero()
    assert (model.weight[~KEEP] == 0).all()
    assert (model.weight[KEEP] != 0).all()


def test_the_masks_are_what_is_saved():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    Enforced(other, Masks({})).load_state_dict(Enforced(one, Masks({"weight": KEEP})).state_dict())
    assert torch.equal(other.weight == 0, ~KEEP)


@pytest.mark.parametrize(("name", "shape", "found"), [("weight", (3, 2), "shape (2, 3)"), ("w", (2, 3), "no such")])
def test_a_mask_that_fits_no_parameter_is_refused(name: str, shape: tuple[int, int], found: str):
    with pytest.raises(CompressorError) as error:
        Enforced(nn.Linear(3, 2), Masks({name: torch.ones(shape, dtype=torch.bool)}))
    assert found in str(error.value)
