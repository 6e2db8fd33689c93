"""What pruning must not change: removing is masking, dropping is skipping, a file is the model."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.model import checkpoint, depth, surgery
from compressor.model.masks import Masks
from compressor.model.outputs import at_real_tokens, raw_output
from compressor.model.runtime import open_session
from compressor.plugin import ModelFamily
from compressor.verify.inference import call


def assert_masked_equals_shrunk(
    model: nn.Module, family: ModelFamily, masks: Masks, batch: Mapping[str, Tensor], *, tolerance: float = 1e-5
) -> nn.Module:
    """Assert that removing units gives what masking them gives, and return the shrunk model.

    Args:
        model: in eval mode; must come out unchanged.
        family: the table under test.
        masks: ``True`` = keep.
        batch: inputs of the model, on its device.
        tolerance: largest absolute difference of the outputs.
    """
    before = checkpoint.fingerprint(model)
    with torch.no_grad(), surgery.masked(model, family.groups(model), masks.keep):
        expected = raw_output(model, batch)
    shrunk = surgery.shrink(model, family, masks)
    with torch.no_grad():
        torch.testing.assert_close(raw_output(shrunk, batch), expected, rtol=0, atol=tolerance)
    for group in family.groups(shrunk):
        assert group.units == int(masks.keep[group.name].sum()), f"{group.name}: the units are still there"
    assert checkpoint.fingerprint(model) == before, "shrink changed the model it was given"
    return shrunk


def assert_skipped_equals_dropped(
    model: nn.Module, family: ModelFamily, masks: Masks, batch: Mapping[str, Tensor], dropped: Sequence[int]
) -> nn.Module:
    """Assert that removing units and whole layers gives what masking and skipping gives; return the smaller model.

    Args:
        model: in eval mode; must come out unchanged.
        family: the table under test.
        masks: ``True`` = keep.
        batch: inputs of the model, on its device.
        dropped: numbers of layers.
    """
    tolerance = 1e-10 if next(model.parameters()).dtype == torch.float64 else 1e-5
    before, groups = checkpoint.fingerprint(model), family.groups(model)
    with torch.no_grad(), surgery.masked(model, groups, masks.keep), depth.skipped(model, groups, dropped):
        expected = raw_output(model, batch)
    smaller = surgery.shrink(model, family, masks, dropped_layers=dropped)
    with torch.no_grad():
        torch.testing.assert_close(raw_output(smaller, batch), expected, rtol=0, atol=tolerance)
    left = len({group.index for group in groups}) - len(set(dropped))
    assert len({group.index for group in family.groups(smaller)}) == left, "the layers are still there"
    assert checkpoint.fingerprint(model) == before, "shrink changed the model it was given"
    return smaller


def assert_onnx_equals_torch(
    path: Path, model: nn.Module, batch: Mapping[str, Tensor], *, tolerance: float = 1e-4
) -> None:
    """Assert that an exported file gives the model's output on a batch, by absolute difference: for tokens, at real ones."""
    session = open_session(path)
    inputs = {put.name: batch[put.name].cpu().numpy() for put in session.get_inputs()}
    found = call(session, inputs)
    with torch.no_grad():
        expected = raw_output(model, {name: batch[name] for name in inputs}).cpu()
    real = batch["attention_mask"].cpu().bool()
    assert found.shape == expected.shape, f"expected outputs of shape {tuple(expected.shape)}; got {found.shape}"
    ours, theirs = (at_real_tokens(one, real) for one in (torch.from_numpy(found), expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
