"""Families whose attention is not BERT's, through whole runs: every method, a recovery, and what is left loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.errors import InputError
from compressor.model.outputs import raw_output
from compressor.plugin import Provider, Registry
from compressor.testing import tiny_batch
from compressor_plugins.methods._map_scorer import fresh_scorer
from compressor_plugins.methods._scorer_files import save_scorer
from tests import lookup
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

TYPES = ("deberta-v2", "modernbert", "mpnet")
RECOVER = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "losses": ["distillation", "hidden"]}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup.hurry(monkeypatch)


def registry() -> Registry:
    found = Registry.load()
    found.register(lookup, "lookup", provider=Provider("lookup-exporter", "1.0", "tests.lookup"))
    return found


def steps(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [*steps, {"export": "lookup"}]


@pytest.mark.parametrize("model_type", TYPES)
def test_every_method_prunes_and_a_recovered_model_loads(tmp_path: Path, model_type: str) -> None:
    methods = [
        {"method": "fisher", "target": {"macs": 0.8}},
        {"method": "kprune", "target": {"macs": 0.6}},
        {"method": "heads", "criterion": "curvature", "target": {"heads": 0.5}},
        {"method": "obs", "target": {"macs": 0.4}},
    ]
    stages = steps(*({"prune": method} for method in methods), {"train": RECOVER})
    recipe = toy_recipe(tmp_path, model_type=model_type, steps=stages)
    finished = run_recipe(recipe, tmp_path / "out", registry=registry())
    costs = [step["metrics"].get("encoder_macs") for step in finished.report["steps"]][:4]
    kept = [cost["compressed"] / cost["dense"] for cost in costs]
    assert all(found <= asked for found, asked in zip(kept, (0.8, 0.6, 0.6, 0.4), strict=True))
    model: Any = compressor.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == finished.report["model"]["parameters"]["compressed"]
    with torch.no_grad():
        assert raw_output(model, tiny_batch(labels=False)).isfinite().all()


@pytest.mark.parametrize("model_type", TYPES)
def test_a_method_that_reads_maps_refuses_them_by_name(tmp_path: Path, model_type: str) -> None:
    save_scorer(fresh_scorer(torch.Generator().manual_seed(0)), scorer := tmp_path / "scorer.safetensors", {})
    prune = {"method": "smp", "scorer": str(scorer), "target": {"heads": 0.5}}
    recipe = toy_recipe(tmp_path, model_type=model_type, steps=steps({"prune": prune}))
    with pytest.raises(InputError, match=f"attention maps of {model_type} cannot be read"):
        run_recipe(recipe, tmp_path / "out", registry=registry())
