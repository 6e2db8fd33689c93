"""Pruning while training, killed without warning or by two processes, ends with the masks of one undisturbed process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.model import Masks
from compressor.train.checkpoints import MARKER
from tests.slow.test_kill import command, finish, kill
from tests.toys import toy_recipe, write_rows

pytestmark = pytest.mark.slow
SAME = ("model.onnx", "model.safetensors", "stages/01-prune/weight_masks.safetensors")
PRUNE: dict[str, Any] = {
    "method": "gradual",
    "target": {"sparsity": 0.8},
    "pattern": "4x1",
    "pruning_type": "snip_momentum_progressive",
    "start_step": 20,
    "end_step": 100,
    "pruning_frequency": 8,
    "train": {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 10},
}
"""120 steps, 30 an epoch."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kill-gradual")
    path = toy_recipe(place, steps=[{"prune": PRUNE}, {"export": {}}, {"verify": {"sequence": 16, "rounds": 3}}])
    write_rows(place / "train.csv", 240, seed=2)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    out = recipe.parent / "undisturbed"
    finish(recipe, out)
    return out


def reached(step: int) -> Callable[[Path], bool]:
    """Return the moment at which the checkpoint of a step begins to be written."""
    return lambda work: (work / f"stages/01-prune/checkpoints/checkpoint-{step}").is_dir()


@pytest.mark.parametrize("step", [10, 60, 110], ids=["before the first event", "on the way", "after the last event"])
def test_a_killed_pruning_goes_on_to_the_same_bytes(step: int, recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    work = kill(recipe, out, reached(step))
    assert not (work / "stages/01-prune/stage.json").exists()
    finish(recipe, out)
    for name in SAME:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_a_checkpoint_cut_short_is_passed_over(recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    work = kill(recipe, out, lambda work: (work / f"stages/01-prune/checkpoints/checkpoint-50/{MARKER}").is_file())
    newest = max((work / "stages/01-prune/checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    (newest / MARKER).unlink(missing_ok=True)
    (newest / "pruning.safetensors").write_bytes(b"")
    finish(recipe, out)
    for name in SAME:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_two_processes_prune_what_one_prunes(tmp_path: Path):
    prune = {**PRUNE, "train": {**PRUNE["train"], "dropout": False, "epochs": 20, "gradient_accumulation": 2}}
    recipe = toy_recipe(tmp_path, steps=[{"prune": prune}])
    finish(recipe, tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = subprocess.run([*launch, *command(recipe, tmp_path / "two")], capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr
    masks = [Masks.load(tmp_path / name / "stages/01-prune/weight_masks.safetensors") for name in ("one", "two")]
    assert masks[0] == masks[1]
