"""Conformance of model families."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model import checkpoint
from compressor.model.outputs import raw_output
from compressor.plugin import ModelFamily
from compressor.testing.declarations import assert_declaration_conforms
from compressor.testing.equalities import assert_masked_equals_shrunk, assert_skipped_equals_dropped
from compressor.testing.tiny import AUTO, example_masks, tiny_batch, tiny_model


def assert_family_conforms(family: ModelFamily, model_type: str, **shape: Any) -> None:
    """Assert that a family's table is right for one model type: a plugin author's one-line test.

    With every head of ``AUTO``, and without one: groups are unique and ordered, masking equals removal to 1e-5 for every
    pruning of ``example_masks``, skipping a layer that may go equals dropping it, and a saved model loads to exactly the same outputs.
    """
    assert_declaration_conforms(family)
    assert model_type in family.model_types, f"{model_type} is not among {family.model_types}"
    batch = tiny_batch(labels=False)
    for head in AUTO:
        model = tiny_model(model_type, head=head, num_labels=None if head == "feature-extraction" else 2, **shape)
        groups = family.groups(model)
        assert len({group.name for group in groups}) == len(groups) > 0, "group names must be unique"
        order = [(group.index, group.kind == "ffn_neurons") for group in groups]
        assert order == sorted(order), "expected groups from bottom to top, attention before FFN"
        for masks in example_masks(groups).values():
            shrunk = assert_masked_equals_shrunk(model, family, masks, batch)
            _assert_loads(shrunk, family, batch)
        fixed = family.fixed_layers(model)
        for layer in sorted({group.index for group in groups} - set(fixed)) if groups[-1].index else ():
            smaller = assert_skipped_equals_dropped(model, family, example_masks(groups)["ragged"], batch, (layer,))
            _assert_loads(smaller, family, batch)


def _assert_loads(model: nn.Module, family: ModelFamily, batch: Mapping[str, Tensor]) -> None:
    with TemporaryDirectory() as directory:
        checkpoint.save(model, Path(directory))
        loaded = checkpoint.load(Path(directory), dict.fromkeys(family.model_types, family))
    with torch.no_grad():
        assert torch.equal(raw_output(loaded, batch), raw_output(model, batch)), "loading changed the outputs"
