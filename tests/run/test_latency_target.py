"""A latency target through the whole pipeline, on a table that is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from compressor.cli import main
from compressor.model.latency_table import LatencyTable, Workload
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import latency
from compressor.run.pipeline import Conditions, run
from compressor.verify.report import model_card
from tests.model.test_latency_table import costs, table
from tests.toys import toy_recipe


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """Every measurement that was made."""
    made: list[Workload] = []

    def measure(_: object, workload: Workload, __: object) -> LatencyTable:
        made.append(workload)
        neurons = costs((0, 16, 32, 48), (0.0, 1.0, 1.5, 3.0))
        return table(workload=workload, layers=3, ffn_neurons=neurons)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "profile", measure)
    return made


def recipe(directory: Path, **target: Any) -> Path:
    steps = [
        {"prune": {"method": "fisher", "target": target}},
        {"export": {"format": "onnx"}},
        {"verify": {"sequence": 16, "rounds": 3}},
    ]
    return toy_recipe(directory, steps=steps)


def test_a_run_announces_the_measurement_and_reports_asked_predicted_and_measured(
    tmp_path: Path, measured: list[Workload]
) -> None:
    registry, said = Registry.load(), []
    plan = compile_plan(load_recipe(recipe(tmp_path, latency=0.5, sequence=16)), registry)
    finished = run(plan, tmp_path / "out", Conditions(registry, torch.device("cpu"), said.append))
    assert measured == [Workload(batch=1, sequence=16)]
    assert [line for line in said if line.startswith("measuring the latency")]
    target = finished.report["steps"][0]["metrics"]["latency_target"]
    assert target["predicted"] <= target["asked"] == 0.5
    (row,) = [
        line for line in model_card(finished.report).splitlines() if line.startswith("| 01-prune | 1 x 16 | 0.500 |")
    ]
    assert "[" in row.split("|")[-2]
    (kept,) = (tmp_path / "out" / "latency").iterdir()
    assert json.loads(kept.read_text())["table"]["layers"] == 3


def test_a_shape_that_was_not_verified_is_called_so(tmp_path: Path) -> None:
    registry = Registry.load()
    plan = compile_plan(load_recipe(recipe(tmp_path, latency=0.5, batch=4, sequence=16)), registry)
    finished = run(plan, tmp_path / "out", Conditions(registry, torch.device("cpu")))
    assert "| 4 x 16 | 0.500 |" in model_card(finished.report)
    assert "not measured" in model_card(finished.report)


def test_a_target_out_of_reach_ends_with_2_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["apply", str(recipe(tmp_path, latency=0.01, sequence=16)), "-o", str(out)])
    assert result.exit_code == 2
    assert "lowest reachable ratio: 0.083" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []
