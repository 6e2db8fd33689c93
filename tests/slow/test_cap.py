"""CAP, killed without warning or by two processes, ends as one undisturbed process does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.model import Masks
from tests.slow.test_kill import command, finish, kill
from tests.toys import toy_recipe, write_rows

pytestmark = pytest.mark.slow
SAME = ("model.onnx", "model.safetensors", "stages/01-prune/masks.safetensors")
PRUNE: dict[str, Any] = {
    "method": "cap",
    "percentages": [30, 60],
    "importance_samples": 64,
    "train": {
        "max_steps": 40,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every": 10,
        "losses": ["task", "distillation", {"name": "contrastive", "modules": ["SnC", "FiC"]}],
    },
}
"""40 steps after each of two cuts; banks of so many rows take long enough to be hit."""
CHECKPOINTS = "stages/01-prune/checkpoints"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kill-cap")
    path = toy_recipe(place, steps=[{"prune": PRUNE}, {"export": {}}, {"verify": {"sequence": 16, "rounds": 3}}])
    write_rows(place / "train.csv", 4000, seed=2)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    out = recipe.parent / "undisturbed"
    finish(recipe, out)
    return out


def banks(count: int, ending: str) -> Callable[[Path], bool]:
    """Return the moment at which there are so many banks, or one of them is half written."""
    return lambda work: len(list((work / CHECKPOINTS / "banks").glob(f"*{ending}"))) == count


def cut(number: int) -> Callable[[Path], bool]:
    """Return the moment at which a cut begins to be written."""
    return lambda work: (work / CHECKPOINTS / f"cuts/{number:02d}").is_dir()


MOMENTS = {
    "the dense model's bank is half written": banks(1, ".part"),
    "a snapshot is half written": lambda work: banks(1, ".npy")(work) and banks(1, ".part")(work),
    "the first cut is half written": cut(1),
    "the second training is under way": lambda work: (
        banks(2, ".npy")(work) and any((work / CHECKPOINTS).glob("checkpoint-*"))
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_pruning_goes_on_to_the_same_bytes(moment: str, recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    work = kill(recipe, out, MOMENTS[moment])
    assert not (work / "stages/01-prune/stage.json").exists()
    finish(recipe, out)
    for name in SAME:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_two_processes_remove_the_units_of_one(tmp_path: Path):
    """Without contrast: its negatives are those of a process alone."""
    train = {**PRUNE["train"], "dropout": False, "losses": ["task", "distillation"]}
    recipe = toy_recipe(tmp_path, steps=[{"prune": {**PRUNE, "train": train}}])
    finish(recipe, tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = subprocess.run([*launch, *command(recipe, tmp_path / "two")], capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr
    masks = [Masks.load(tmp_path / name / "stages/01-prune/masks.safetensors") for name in ("one", "two")]
    assert masks[0] == masks[1]


def test_two_processes_zero_the_weights_of_one(tmp_path: Path):
    train = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "dropout": False, "losses": ["task", "distillation"]}
    prune = {"method": "cap", "backend": "magnitude", "target": {"sparsity": 0.8}, "train": train}
    recipe = toy_recipe(tmp_path, steps=[{"prune": prune}])
    finish(recipe, tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = subprocess.run([*launch, *command(recipe, tmp_path / "two")], capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr
    masks = [Masks.load(tmp_path / name / "stages/01-prune/weight_masks.safetensors") for name in ("one", "two")]
    different = [int((one != masks[1].keep[name]).sum()) for name, one in masks[0].keep.items()]
    assert sum(different) <= 4  # weights of nearly equal size may change places: sums are formed in another order
    assert masks[0].sparsity == pytest.approx(0.8, abs=1e-3)


def test_two_processes_share_the_banks_that_the_first_makes(tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[{"prune": PRUNE}])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = subprocess.run([*launch, *command(recipe, tmp_path / "two")], capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr
    assert (
        sum(int(mask.sum()) for mask in Masks.load(tmp_path / "two/stages/01-prune/masks.safetensors").keep.values())
        > 0
    )
