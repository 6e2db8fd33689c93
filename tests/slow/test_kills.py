"""A run that is killed at every one of its file operations ends with the same files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_house import ROOT
from tests.toys import toy_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STEPS = [
    {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
    {"train": {"max_steps": 3, "batch_size": 8, "checkpoint_every": 1}},
    {"export": "lookup"},
    {"quantize": {"method": "int8-dynamic", "embeddings": True}},
    {"verify": {"sequence": 8, "rounds": 3, "samples": 20}},
]
MEASURED = {"README.md", "ort_config.json", "report.html", "report.json", "run.log", "stage.json"}
"""Files with times in them."""


def hashes(out: Path) -> dict[str, str]:
    """Return the sha256 of every file; of those with times in them, only that they are there."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(out)): "" if path.name in MEASURED else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def test_a_run_killed_at_every_file_operation_ends_with_the_same_files(tmp_path: Path):
    place = tmp_path / "there"
    recipe = toy_recipe(tmp_path, steps=STEPS)
    finished = {}
    for name, most in (("killed", 200), ("undisturbed", 0)):
        (place / name).mkdir(parents=True)
        command = [sys.executable, "-m", "tests.slow.kills", str(recipe), str(place / name / "out"), str(most)]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        finished[name] = json.loads(done.stdout.splitlines()[-1])
        assert finished[name]["status"] == 0, done.stderr
        assert [path.name for path in (place / name).iterdir()] == ["out"]
    places = finished["killed"]["places"]
    assert len(places) >= 20, places
    assert finished["killed"]["early"] == []
    for stage in ("01-prune", "02-train", "03-export", "04-quantize", "05-verify"):
        inside = [one for one in places if f"/stages/{stage}/" in one]
        assert [one for one in inside if one.startswith("rename") and one.endswith("stage.json")], stage
        assert len(inside) > 1, f"nothing died inside {stage}"
    for name in ("model.onnx", "model_int8.onnx", "model.safetensors", "recipe.lock.yaml"):
        assert [one for one in places if one.partition(" ")[2].split("/", 1)[-1].startswith(name)], name
    assert hashes(place / "killed" / "out") == hashes(place / "undisturbed" / "out")
