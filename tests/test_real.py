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
from compressor.recipe.plan import Plan, compile_plan
from compressor.run.again import verify_again
from compressor.run.pipeline import Conditions, run
from tests.test_house import ROOT


def shortened(name: str, model: str, shared: Path, *overrides: str) -> Plan:
    """Compile a shipped recipe for real weights and data, with fewer calibration rows and rounds."""
    recipe = load_recipe(
        ROOT / "recipes" / f"{name}.yaml",
        model=str(shared / "models" / model),
        overrides=[
            f"task.path={shared / 'data' / 'glue'}",
            "calibration.samples=128",
            "steps.2.verify.batch=1",
            "steps.2.verify.rounds=3",
            *overrides,
        ],
    )
    return compile_plan(recipe, Registry.load())


def finished(plan: Plan, out: Path) -> dict[str, Any]:
    return run(plan, out, Conditions(Registry.load(), torch.device("cpu"))).report


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "least"), [("minilm_mrpc_fisher", 0.75), ("minilm_sst2_fisher", 0.85), ("minilm_mrpc_kprune", 0.74)]
)
def test_the_shipped_recipes_keep_the_accuracy_within_the_budget(name: str, least: float, shared: Path, tmp_path: Path):
    plan = shortened(name, f"all-MiniLM-L6-v2-{name.split('_')[1]}", shared, "steps.2.verify.sequence=32")
    method: Any = plan.steps[0].component
    keep = method.target.macs
    report = finished(plan, tmp_path / "out")
    macs = report["model"]["encoder_macs"]
    assert (keep - 0.01) * macs["dense"] < macs["compressed"] <= keep * macs["dense"]
    assert report["quality"]["compressed"]["accuracy"] >= least
    dense = initializer_elements(tmp_path / "out/stages/02-export/dense.onnx")
    removed = dense - initializer_elements(tmp_path / "out/model.onnx")
    sizes = report["model"]["parameters"]
    assert removed == pytest.approx(sizes["dense"] - sizes["compressed"], abs=2000)
    model: Any = compressor.load(tmp_path / "out")
    assert sum(parameter.numel() for parameter in model.parameters()) == sizes["compressed"]
    again = verify_again(tmp_path / "out", {"rounds": 3})
    assert again["quality"] == report["quality"]


@pytest.mark.real
def test_a_latency_target_is_predicted_within_the_target_and_reported_beside_the_measurement(
    shared: Path, tmp_path: Path
):
    plan = shortened("minilm_mrpc_latency", "all-MiniLM-L6-v2-mrpc", shared)
    report = finished(plan, tmp_path / "out")
    target = report["steps"][0]["metrics"]["latency_target"]
    assert 0.58 < target["predicted"] <= target["asked"] == 0.6
    assert (target["batch"], target["sequence"]) == (1, 128)
    assert {(row["batch"], row["sequence"]) for row in report["latency"]} == {(1, 128)}
    assert report["quality"]["compressed"]["accuracy"] >= 0.75
