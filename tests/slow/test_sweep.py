"""A sweep in real processes: killed twice it ends with the complete table, and a Ray cluster gives the same numbers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.test_house import ROOT
from tests.toys import toy_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
COMPRESS = Path(sys.executable).with_name("compress")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
OVER = ("--over", "steps.0.prune.method=fisher,obs", "--over", "steps.0.prune.target.macs=0.7,0.4")
NAMES = [f"{method}_macs-{macs}" for method in ("fisher", "obs") for macs in (0.7, 0.4)]
SAME = ("model.onnx", "model.safetensors", "config.json", "stages/01-prune/masks.safetensors")
PATIENCE = 600
"""Seconds until something that is waited for must have come."""


def command(recipe: Path, out: Path, *options: str) -> list[str]:
    return [str(COMPRESS), "sweep", str(recipe), *OVER, "-o", str(out), "--device", "cpu", *options]


def finish(recipe: Path, out: Path, *options: str) -> str:
    """Run to the end and return what was written to stderr."""
    done = subprocess.run(
        command(recipe, out, *options), capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=recipe.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill(recipe: Path, out: Path, moment: str) -> list[str]:
    """Start the sweep, kill it when a path below its directory is there, and return the points that are finished."""
    process = subprocess.Popen(
        command(recipe, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, cwd=recipe.parent
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(out.parent.glob(f"{out.name}.partial-*/{moment}")):
            assert process.poll() is None, "the sweep ended before it could be killed"
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    return [name for name in NAMES if list(out.parent.glob(f"{out.name}.partial-*/{name}"))]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps = [
        {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
        {"export": {"format": "onnx"}},
        {"verify": {"sequence": 16, "rounds": 3}},
    ]
    return toy_recipe(tmp_path_factory.mktemp("sweep"), steps=steps)


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    out = recipe.parent / "undisturbed"
    finish(recipe, out)
    return out


def figures(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the table without what was timed, which must be there."""
    rows = json.loads((out / "sweep.json").read_text())["rows"]
    assert all(row["latency"] for row in rows)
    return [{name: value for name, value in row.items() if name not in {"latency", "pareto"}} for row in rows]


def assert_same(out: Path, expected: Path) -> None:
    """Check that a sweep has the complete table, and the numbers and files of another one."""
    assert figures(out) == figures(expected)
    with (out / "sweep.csv").open() as file:
        assert [line["name"] for line in csv.DictReader(file)] == NAMES
    for name in NAMES:
        for file_name in SAME:
            assert (out / name / file_name).read_bytes() == (expected / name / file_name).read_bytes(), (
                name,
                file_name,
            )


def test_a_sweep_killed_twice_ends_with_the_complete_table(recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert kill(recipe, out, "shared/*/pruned.json") == []
    finished = kill(recipe, out, "fisher_macs-0.4.partial-*/stages/02-export/dense.onnx")
    assert finished == ["fisher_macs-0.7"]
    said = finish(recipe, out)
    assert [
        line for line in said.splitlines() if line.startswith("point") and line.endswith("was finished before")
    ] == ["point 1 of 4: steps.0.prune.method = 'fisher', steps.0.prune.target.macs = 0.7 was finished before"]
    assert "points: " not in said, "all prunings were done before the second kill"
    assert_same(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a cluster of two nodes with one CPU each."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed (make test-slow installs it)")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.slow.ray_cluster"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(PATIENCE)


def test_a_cluster_of_two_nodes_gives_the_same_numbers(recipe: Path, undisturbed: Path, tmp_path: Path, cluster: str):
    out = tmp_path / "out"
    said = finish(recipe, out, "--ray", cluster)
    assert "2 nodes of the cluster do one job each at a time" in said
    assert all(f"{name} is done" in said for name in NAMES)
    assert_same(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
