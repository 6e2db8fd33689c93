"""A run that is killed without warning continues under the same command, to the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.toys import toy_recipe, write_rows

pytestmark = pytest.mark.slow
COMPRESS = Path(sys.executable).with_name("compress")
PATIENCE = 300
"""Seconds until a run must have come to the point where it is killed."""
SAME = ("model.onnx", "model.safetensors", "config.json", "stages/01-prune/masks.safetensors")


def command(recipe: Path, out: Path) -> list[str]:
    return [str(COMPRESS), "apply", str(recipe), "-o", str(out), "--device", "cpu"]


def finish(recipe: Path, out: Path) -> str:
    """Run to the end and return what was written to stderr."""
    done = subprocess.run(command(recipe, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose stages last long enough to be hit."""
    place = tmp_path_factory.mktemp("kill")
    path = toy_recipe(place, calibration={"samples": 1500, "batch_size": 4})
    write_rows(place / "train.csv", 1500, seed=2)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    out = recipe.parent / "undisturbed"
    finish(recipe, out)
    return out


def stages(work: Path) -> dict[str, bool]:
    """Return the stages that were begun, and whether each is finished."""
    return {stage.name: (stage / "stage.json").is_file() for stage in sorted((work / "stages").glob("*"))}


def kill(recipe: Path, out: Path, moment: Callable[[Path], bool]) -> Path:
    """Start a run, kill it at a moment that shows in its directory, and return that directory."""
    process = subprocess.Popen(command(recipe, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not any(moment(work) for work in out.parent.glob(f"{out.name}.partial-*/")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    (work,) = out.parent.glob(f"{out.name}.partial-*/")
    return work


MOMENTS: dict[str, tuple[Callable[[Path], bool], dict[str, bool]]] = {
    "prune": (lambda work: (work / "stages/01-prune").is_dir(), {"01-prune": False}),
    "export": (lambda work: (work / "stages/02-export/dense.onnx").is_file(), {"01-prune": True, "02-export": False}),
    "verify": (
        lambda work: (work / "stages/03-verify").is_dir(),
        {"01-prune": True, "02-export": True, "03-verify": False},
    ),
}
"""When to kill, and which stages are begun (and finished) then."""


@pytest.mark.parametrize("verb", MOMENTS)
def test_a_killed_run_continues_to_the_same_bytes(verb: str, recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    moment, begun = MOMENTS[verb]
    work = kill(recipe, out, moment)
    assert stages(work) == begun
    assert not out.exists()
    said = finish(recipe, out)
    for stage, finished in begun.items():
        assert (f"{stage} was finished before" in said) == finished
    for name in SAME:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert (
        json.loads((out / "report.json").read_text())["quality"]
        == (json.loads((undisturbed / "report.json").read_text())["quality"])
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_run_survives_three_kills(recipe: Path, undisturbed: Path, tmp_path: Path):
    out = tmp_path / "out"
    works = {kill(recipe, out, moment) for moment, _ in MOMENTS.values()}
    assert len(works) == 1
    finish(recipe, out)
    for name in SAME:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    locks = [yaml.safe_load((place / "recipe.lock.yaml").read_text()) for place in (out, undisturbed)]
    assert locks[0]["digest"] == locks[1]["digest"]
