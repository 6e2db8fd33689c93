"""A training that is killed, and one that several processes do together, end with the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import compressor
from compressor.model.outputs import raw_output
from compressor.testing import tiny_batch
from tests.slow.test_kill import COMPRESS, command, finish, kill
from tests.toys import toy_recipe, write_rows

pytestmark = pytest.mark.slow
PRUNE = {"prune": {"method": "fisher", "target": {"macs": 0.5}}}
STAGE = "stages/02-train"
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    "accelerate": (
        "accelerate.commands.launch",
        "--multi_gpu",  # with --cpu it starts one process, or asks for MPI; what runs uses no GPU
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--no_python",
    ),
}
"""By the module that is run, and its arguments."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("killed training")
    train = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "losses": ["task", "hidden"], "checkpoint_every": 40}
    path = toy_recipe(place, steps=[PRUNE, {"train": train}])
    write_rows(place / "train.csv", 1500, seed=2)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    finish(recipe, recipe.parent / "undisturbed")
    return recipe.parent / "undisturbed"


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first checkpoint": lambda work: (work / STAGE / "checkpoints").is_dir(),
    "while a checkpoint is written": lambda work: (work / STAGE / "checkpoints/checkpoint-120").is_dir(),
    "after a checkpoint of the second epoch": lambda work: (
        work / STAGE / "checkpoints/checkpoint-240/complete.json"
    ).is_file(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_training_continues_to_the_same_bytes(moment: str, recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    work = kill(recipe, out, MOMENTS[moment])
    assert not (work / STAGE / "stage.json").exists()
    assert "01-prune was finished before" in finish(recipe, out)
    resumed = json.loads((out / "report.json").read_text())["steps"][1]["metrics"]["training"].get(
        "resumed_from_step", 0
    )
    assert resumed >= {"before": 0, "while ": 80, "after ": 240}[moment[:6]]
    assert (resumed == 0) == moment.startswith("before")
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not (out / STAGE / "checkpoints").exists()


def finish_by_two(recipe: Path, out: Path, launcher: str = "torchrun") -> str:
    """Run to the end in two processes; return what was written to stderr."""
    launch = [sys.executable, "-m", *LAUNCHERS[launcher]]
    done = subprocess.run([*launch, *command(recipe, out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_the_model_that_one_trains(launcher: str, tmp_path: Path):
    losses = ["task", "distillation", "hidden"]
    train = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "dropout": False, "losses": losses}
    recipe = toy_recipe(tmp_path, steps=[PRUNE, {"train": train}])
    finish(recipe, tmp_path / "one")
    said = finish_by_two(recipe, tmp_path / "two", launcher)
    assert said.count("written to") == said.count("load ") == 1  # one process speaks
    metrics = [
        json.loads((tmp_path / n / "report.json").read_text())["steps"][1]["metrics"]["training"]
        for n in ("one", "two")
    ]
    assert [found["processes"] for found in metrics] == [1, 2]
    assert metrics[0]["curve"] == pytest.approx(metrics[1]["curve"], abs=1e-5)
    models: list[Any] = [compressor.load(tmp_path / name) for name in ("one", "two")]
    batch = tiny_batch(labels=False)
    with torch.no_grad():
        assert float((raw_output(models[0], batch) - raw_output(models[1], batch)).abs().max()) <= 1e-6
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        if not name.endswith("key.bias"):  # shifts all scores of a query alike: no effect, and a gradient of noise
            torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-6, msg=name)


TRAINED = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "dropout": False}
METHODS: dict[str, dict[str, Any]] = {
    "fisher": {"target": {"macs": 0.5}},
    "sparsegpt": {"target": {"sparsity": 0.5}, "pattern": "2:4"},
    "one_shot": {"target": {"sparsity": 0.5}, "pattern": "4x1", "criterion": "snip"},
    "gradual": {"target": {"sparsity": 0.5}, "pattern": "2:4", "train": TRAINED},
    "obs": {"target": {"macs": 0.5}},  # by the first process alone
}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_find_the_masks_of_one(method: str, tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[{"prune": {"method": method, **METHODS[method]}}])
    finish(recipe, tmp_path / "one")
    finish_by_two(recipe, tmp_path / "two")
    for name in ("masks.safetensors", "weight_masks.safetensors"):
        one, two = ((tmp_path / out / "stages/01-prune" / name).read_bytes() for out in ("one", "two"))
        assert one == two, name
    weights = [load_file(tmp_path / out / "model.safetensors") for out in ("one", "two")]
    for name, weight in weights[0].items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-5, msg=name)


def test_a_sweep_refuses_several_processes(tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[PRUNE])
    told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    found = subprocess.run(
        [
            str(COMPRESS),
            "sweep",
            str(recipe),
            "--over",
            "steps.0.prune.target.macs=0.5,0.6",
            "-o",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **told},
    )
    assert found.returncode == 3
    assert "runs in one process" in found.stderr
