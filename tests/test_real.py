"""The shipped recipe on a real fine-tuned checkpoint and real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.model.artifact import initializer_elements
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.again import verify_again
from compressor.run.pipeline import Conditions, run
from tests.test_house import ROOT


@pytest.mark.real
@pytest.mark.parametrize(("task", "least"), [("mrpc", 0.75), ("sst2", 0.85)])
def test_the_shipped_recipes_keep_the_accuracy_within_the_budget(task: str, least: float, shared: Path, tmp_path: Path):
    recipe = load_recipe(
        ROOT / "recipes" / f"minilm_{task}_fisher.yaml",
        model=str(shared / "models" / f"all-MiniLM-L6-v2-{task}"),
        overrides=[
            f"task.path={shared / 'data' / 'glue'}",
            "calibration.samples=128",
            "steps.2.verify.batch=1",
            "steps.2.verify.sequence=32",
            "steps.2.verify.rounds=3",
        ],
    )
    registry = Registry.load()
    plan = compile_plan(recipe, registry)
    result = run(plan, tmp_path / "out", Conditions(registry, torch.device("cpu")))
    macs = result.report["model"]["encoder_macs"]
    assert 0.59 * macs["dense"] < macs["compressed"] <= 0.6 * macs["dense"]
    assert result.report["quality"]["compressed"]["accuracy"] >= least
    dense = initializer_elements(tmp_path / "out/stages/02-export/dense.onnx")
    removed = dense - initializer_elements(tmp_path / "out/model.onnx")
    sizes = result.report["model"]["parameters"]
    assert removed == pytest.approx(sizes["dense"] - sizes["compressed"], abs=2000)
    model: Any = compressor.load(tmp_path / "out")
    assert sum(parameter.numel() for parameter in model.parameters()) == sizes["compressed"]
    again = verify_again(tmp_path / "out", {"rounds": 3})
    assert again["quality"] == result.report["quality"]
