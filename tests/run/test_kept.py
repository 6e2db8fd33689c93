"""A kept pruning comes back as it was, or not at all."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from compressor.model.masks import Masks
from compressor.plugin import Pruned, Trimmed
from compressor.run.kept import FILE, PLAIN, Kept

MASKS = Masks({"one": torch.tensor([True, False]), "two": torch.tensor([False])})
PRUNED = Pruned(
    MASKS,
    {"weight": torch.arange(6.0).view(2, 3).T},
    {"sequence": 35.123456789012345, "empty": []},
    (1, 3),
    trimmed=Trimmed((0, 2, 5), {"vocab.txt": "[PAD]\nß\n"}, 64),
)


def test_it_comes_back_as_it_was(tmp_path: Path):
    kept = Kept(tmp_path / "here")
    assert kept.load("a") is None
    kept.save(PRUNED, fingerprint="a")
    found = kept.load("a")
    assert found is not None
    assert found.masks == PRUNED.masks
    assert found.metrics == PRUNED.metrics
    assert found.dropped_layers == (1, 3)
    assert found.trimmed == PRUNED.trimmed
    assert found.weights.keys() == PRUNED.weights.keys()
    assert torch.equal(found.weights["weight"], PRUNED.weights["weight"])


def test_every_field_is_kept():
    assert {field.name for field in fields(Pruned)} == {"masks", "weights", *PLAIN}


def test_tied_weights_can_be_kept(tmp_path: Path):
    shared = torch.ones(3)
    Kept(tmp_path).save(Pruned(MASKS, {"one": shared, "two": shared}), fingerprint="a")
    found = Kept(tmp_path).load("a")
    assert found is not None
    assert found.weights.keys() == {"one", "two"}


@pytest.mark.parametrize("name", [FILE, "masks.safetensors", "weights.safetensors"])
def test_damaged_files_and_other_fingerprints_are_nothing(tmp_path: Path, name: str):
    kept = Kept(tmp_path / "here")
    kept.save(PRUNED, fingerprint="a")
    assert kept.load("b") is None
    (kept.directory / name).write_bytes(b"{")
    assert kept.load("a") is None
