"""``compress sweep`` as a user meets it: exit codes, what is on stdout, what is on stderr, what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from tests.lookup import hurry
from tests.plugin.distributions import install
from tests.toys import toy_recipe

MACS = "steps.0.prune.target.macs"


def compress(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_recipe(tmp_path, steps=[{"prune": {"method": "fisher", "target": {"macs": [0.6, 0.3]}}}])
    monkeypatch.chdir(tmp_path)


def test_a_sweep_writes_tables_to_stdout_and_one_line_per_point_to_stderr():
    result = compress("sweep", "recipe.yaml", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("point")] == [
        f"point 1 of 2: {MACS} = 0.6",
        f"point 2 of 2: {MACS} = 0.3",
    ]
    assert lines[0].startswith("note: no verify step")
    assert lines[-1] == "written to runs/toy-sweep"
    assert f"Family over {MACS}: size and front" in result.stdout
    assert sorted(path.name for path in Path("runs").iterdir()) == ["toy-sweep"]


def test_json_is_all_that_is_on_stdout_and_apply_takes_a_point():
    options = ("--over", f"{MACS}=0.7,0.5", "-o", "there", "--set", "seed=3", "--json", "-m", "./checkpoint")
    result = compress("sweep", "recipe.yaml", *options)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report == json.loads(Path("there/sweep.json").read_text())
    assert [row["settings"] for row in report["rows"]] == [None, {MACS: 0.7}, {MACS: 0.5}]
    again = compress("apply", "there/macs-0.5/recipe.lock.yaml", "-o", "again")
    assert again.exit_code == 0, again.stderr
    assert Path("again/model.safetensors").read_bytes() == Path("there/macs-0.5/model.safetensors").read_bytes()


def test_a_failed_gate_of_one_point_ends_with_1_after_all_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path / "site", "lookups", {"lookup": "tests.lookup"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    hurry(monkeypatch)
    toy_recipe(
        tmp_path,
        steps=[
            {"prune": {"method": "fisher", "target": {"macs": [0.6, 0.3]}}},
            {"export": "lookup"},
            {"verify": {"sequence": 8, "rounds": 3, "samples": 8, "gates": {"macs": 0.5}}},
        ],
    )
    result = compress("sweep", "recipe.yaml", "--json")
    assert result.exit_code == 1, result.stderr
    report = json.loads(result.stdout)
    assert (report["passed"], [row["verdict"] for row in report["rows"]]) == (False, [None, "fail", "pass"])


@pytest.mark.parametrize("verb", ["apply", "check", "plan"])
def test_a_single_run_refuses_a_list(verb: str):
    result = compress(verb, "recipe.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = (line for line in result.stderr.splitlines() if "recipe.yaml:" in line)
    assert f"  {MACS}: expected a number in (0, 1], got [0.6, 0.3], a list; next step: compress sweep" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("--set", f"{MACS}=0.5"), ("recipe.yaml: nothing to sweep over", f"--over {MACS}=0.8,0.6,0.4")),
        (("--over", "seed=0,1", "--over", "seed=2"), ("  seed: is given twice; write all values into one list",)),
        (("--over", f"{MACS}=60,70"), ("error: 2 mistakes", f"--over {MACS}  {MACS}: expected a number in (0, 1]")),
        (("-o", "checkpoint", "--fresh"), ("--fresh replaces only what compress sweep wrote",)),
    ],
)
def test_what_cannot_be_swept_ends_with_2_and_leaves_nothing(arguments: tuple[str, ...], messages: tuple[str, ...]):
    result = compress("sweep", "recipe.yaml", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    for message in messages:
        assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()
    assert not list(Path().glob("checkpoint.*"))
