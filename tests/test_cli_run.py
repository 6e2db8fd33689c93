"""The verbs that touch models, as a user meets them: exit codes, what is on stdout, what is on stderr, what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.model import runtime
from compressor.run.output import LOCK
from compressor.testing import tiny_checkpoint
from tests.plugin.distributions import install
from tests.toys import toy_recipe

COMPRESS = Path(sys.executable).with_name("compress")
INTERRUPTING = """
import os
from compressor.plugin import hookimpl

@hookimpl(wrapper=True)
def compressor_run_step(step):
    if step.verb == os.environ.get("INTERRUPT"):
        raise KeyboardInterrupt
    return (yield)
"""
APPLY = ("apply", "recipe.yaml", "-m", "./checkpoint", "--device", "cpu")
ASKED = ("--set", "task.max_length=24", "--set", "steps.2.verify.samples=30")
LINES = [
    r"load ./checkpoint on cpu",
    r"calibrate on 32 rows of task 'text-classification', \d+\.\d\d tokens on average",
    r"01-prune was finished before \(\d+\.\d s\)",
    r"02-export was finished before \(\d+\.\d s\)",
    r"verify\(sequence=\(16,\), rounds=3, samples=30, gates=Gates\(macs=0.5\)\)",
    r"03-verify took \d+\.\d s",
    r"written to runs/toy",
]


def compress(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Runs:
    """One run in two attempts.

    Attributes:
        place: the directory they were made in.
        interrupted: the first attempt.
        left: the files that were there after it.
        resumed: the second attempt, with ``--json``, in a process of its own.
    """

    place: Path
    interrupted: Result
    left: Mapping[str, bytes]
    resumed: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("place")
    toy_recipe(place)
    tiny_checkpoint(place / "checkpoint", num_hidden_layers=1)
    install(place / "site", "interrupting", {"stop": "interrupting"}, modules={"interrupting": INTERRUPTING})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place / "site")
        patch.setenv("INTERRUPT", "verify")
        interrupted = compress(*APPLY, *ASKED)
        patch.delenv("INTERRUPT")
    left = files(place)
    resumed = subprocess.run(
        [str(COMPRESS), *APPLY, *ASKED, "--json"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "site"), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Runs(place, interrupted, left, resumed)


@pytest.fixture
def out(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, below the current directory."""
    assert runs.resumed.returncode == 0, runs.resumed.stderr
    monkeypatch.chdir(runs.place)
    return Path("runs/toy")


@pytest.fixture
def pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe that only prunes, in the current directory: a run of a second."""
    toy_recipe(tmp_path, steps=[{"prune": {"method": "fisher", "target": {"macs": 0.5}}}])
    monkeypatch.chdir(tmp_path)
    return "recipe.yaml"


def test_an_interrupted_run_ends_with_130_and_is_not_finished(runs: Runs):
    assert runs.interrupted.exit_code == 130
    assert runs.interrupted.stdout == ""
    assert runs.interrupted.stderr.splitlines()[-1] == "interrupted; the same command resumes"
    made = {Path(name).parts[1] for name in runs.left if name.startswith("runs")}
    assert [re.fullmatch(r"toy\.partial-[0-9a-f]{12}", name) is not None for name in made] == [True]


def test_the_same_command_resumes_into_the_default_directory_with_only_progress_on_stderr(runs: Runs):
    assert runs.resumed.returncode == 0
    lines = runs.resumed.stderr.splitlines()
    assert len(lines) == len(LINES)
    for line, pattern in zip(lines, LINES, strict=True):
        assert re.fullmatch(pattern, line)
    assert [path.name for path in (runs.place / "runs").iterdir()] == ["toy"]


def test_json_is_all_that_is_on_stdout(runs: Runs, out: Path):
    report = json.loads(runs.resumed.stdout)
    written = json.loads((out / "report.json").read_text())
    assert written == report
    assert report["schema_version"] == 1
    assert report["passed"] is True
    assert (report["recipe"]["model"], report["recipe"]["task"]["max_length"]) == ("./checkpoint", 24)
    assert report["quality"]["rows"] == 30


def test_overrides_are_in_the_lock_file(out: Path):
    lock = (out / "recipe.lock.yaml").read_text()
    assert all(value in lock for value in ("model=./checkpoint", "task.max_length=24", "steps.2.verify.samples=30"))


@pytest.mark.usefixtures("out")
def test_an_existing_directory_is_refused():
    result = compress(*APPLY, *ASKED)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.match(r"error: \S+/runs/toy: exists already; nothing is overwritten\n  next: ", result.stderr)


def test_a_failed_gate_ends_with_1_and_the_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path
):
    toy_recipe(tmp_path, steps=[{"export": {}}, {"verify": {"sequence": 8, "rounds": 3}}])
    shutil.copytree(out.parents[1] / "checkpoint", tmp_path / "checkpoint", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = compress("apply", "recipe.yaml", "-o", "there/dense", "--set", "steps.1.verify.gates.macs=0.5")
    assert result.exit_code == 1
    assert "FAILED: 1 of 1 gates failed" in result.stdout.splitlines()
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert result.stderr.splitlines()[-1] == "written to there/dense"
    assert json.loads((tmp_path / "there" / "dense" / "report.json").read_text())["passed"] is False
    assert (tmp_path / "there" / "dense" / "model.onnx").is_file()


def test_fresh_replaces_the_directory_and_nothing_else_does(pruning: str):
    assert compress("apply", pruning).exit_code == 0
    out = Path("runs/toy")
    first = (out / "stages" / "01-prune" / "stage.json").read_bytes()
    (out / "note.txt").write_text("of the user")
    refused = compress("apply", pruning)
    assert refused.exit_code == 2
    assert "or --fresh to replace this one" in refused.stderr
    result = compress("apply", pruning, "--fresh")
    assert result.exit_code == 0, result.stderr
    assert "was finished before" not in result.stderr
    assert not (out / "note.txt").exists()
    assert json.loads(first)["fingerprint"] in (out / "stages" / "01-prune" / "stage.json").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["toy"]


def test_a_replay_ends_with_0_where_it_gives_the_same_bytes_and_with_1_where_not(pruning: str):
    assert compress("apply", pruning).exit_code == 0
    replay = ("apply", "runs/toy/recipe.yaml", "--locked", "-o")
    same = compress(*replay, "same", "--json")
    assert same.exit_code == 0, same.stderr
    assert "reproduced model.safetensors, byte for byte: sha256 " in same.stderr
    assert json.loads(same.stdout)["replay"]["reproduced"] is True
    lock = Path("runs/toy/recipe.lock.yaml")
    text = lock.read_text()
    lock.write_text(re.sub(r"(model.safetensors:) \w+", r"\1 " + "ab" * 32, text))
    other = compress("apply", str(lock), "--locked", "-o", "other")
    assert other.exit_code == 1
    assert f"NOT reproduced: model.safetensors: sha256 locked {'ab' * 32}, present " in other.stderr
    assert compress("apply", str(lock), "--locked", "-o", "third", "--set", "seed=1").exit_code == 2
    assert not Path("third").exists()


def test_a_recipe_without_a_lock_file_cannot_be_replayed(pruning: str):
    result = compress("apply", pruning, "--locked")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: recipe.yaml: --locked needs a lock file" in result.stderr


def test_fresh_does_not_replace_what_is_no_run(pruning: str, tmp_path: Path):
    before = files(tmp_path)
    for place in (".", "checkpoint"):
        result = compress("apply", pruning, "--fresh", "-o", place)
        assert result.exit_code == 2
        assert "--fresh replaces only what compress apply wrote" in result.stderr
        refused = compress("apply", pruning, "-o", place)
        assert "exists already" in refused.stderr
        assert "--fresh" not in refused.stderr
    assert files(tmp_path) == before


def test_verify_repeats_the_measurement_and_writes_nothing(out: Path):
    before = files(out)
    shape = ("--batch", "2", "--sequence", "4", "--sequence", "8", "--threads", "1", "--rounds", "4")
    result = compress("verify", str(out), "--json", *shape)
    assert (result.exit_code, result.stderr) == (0, "")
    report, first = json.loads(result.stdout), json.loads((out / "report.json").read_text())
    shapes = {(row["batch"], row["sequence"], row["threads"], row["rounds"]) for row in report["latency"]}
    assert shapes == {(2, 4, 1, 4), (2, 8, 1, 4)}
    assert report["quality"] == first["quality"]
    assert report["model"] == first["model"]
    assert [gate["verdict"] for gate in report["gates"]] == ["pass"]
    assert files(out) == before


def test_verify_and_bench_in_openvino(out: Path):
    shape = ("--provider", "openvino", "--rounds", "3", "--sequence", "4", "--json")
    report, first = (
        json.loads(compress("verify", str(out), *shape).stdout),
        json.loads((out / "report.json").read_text()),
    )
    assert {(row["model"], row["provider"], row["clock"]) for row in report["latency"]} == {
        ("dense", "openvino", "wall"),
        ("compressed", "openvino", "wall"),
    }
    assert report["quality"]["dense"] == first["quality"]["dense"]
    assert (report["serve"]["file"], report["serve"]["provider"]) == ("model.onnx", "openvino")
    assert "openvino" in report["environment"]["packages"]
    rows = json.loads(compress("bench", str(out), *shape).stdout)["latency"]
    assert [(row["model"], row["provider"]) for row in rows] == [("dense", "openvino"), ("toy", "openvino")]


def test_verify_ends_with_1_when_a_gate_fails(out: Path, tmp_path: Path):
    strict = shutil.copytree(out, tmp_path / "strict")
    text = (strict / LOCK).read_text()
    lock, changed = re.subn(r"(gates:(?:\s+\w+: null)*\s+macs:) 0.5", r"\1 0.1", text)
    assert changed == 1
    (strict / LOCK).write_text(lock)
    result = compress("verify", str(strict), "--rounds", "3", "--sequence", "4")
    assert result.exit_code == 1
    assert result.stdout.rstrip().endswith("FAILED: 1 of 1 gates failed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "nowhere"), "nowhere: no such directory"),
        (("verify", "checkpoint"), "checkpoint: not a finished run with an exported model: recipe.lock.yaml, "),
        (
            ("verify", "runs/toy", "--sequence", "300"),
            "runs/toy: a sequence of 300 tokens: the model has 160 positions",
        ),
        (("bench", "nowhere"), "nowhere: no such file"),
        (("bench", "checkpoint"), "checkpoint/model.onnx: no such file"),
        (("bench", "train.csv"), "train.csv: onnxruntime cannot load this file: "),
        (("bench", "runs/toy", "--sequence", "300"), "onnxruntime cannot run the file on inputs of shape 1x300: "),
        (("inspect", "nowhere"), "nowhere: no such file or directory"),
        (("inspect", "nowhere.onnx"), "nowhere.onnx: no such file or directory"),
        (("inspect", "train.csv"), "train.csv: expected an .onnx file, a checkpoint directory or "),
        (("inspect", "runs"), "runs: expected a checkpoint directory, found no config.json in it"),
    ],
)
@pytest.mark.usefixtures("out")
def test_what_cannot_be_measured_again_is_one_error(
    arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
):
    result = compress(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert capfd.readouterr() == ("", ""), "a library wrote past the command line"


@pytest.mark.parametrize("verb", ["bench", "verify"])
@pytest.mark.parametrize("wrong", [("--batch", "0"), ("--sequence", "1"), ("--threads", "-1"), ("--rounds", "2")])
@pytest.mark.usefixtures("out")
def test_a_shape_that_cannot_be_measured_is_a_usage_error(verb: str, wrong: tuple[str, str]):
    result = compress(verb, "runs/toy", *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{wrong[0]}'" in result.stderr


def test_threads_0_leave_the_choice_to_onnxruntime(out: Path):
    result = compress("bench", str(out), "--rounds", "3", "--sequence", "2", "--threads", "0", "--json")
    assert {row["threads"] for row in json.loads(result.stdout)["latency"]} == {0}


def test_bench_times_a_run_against_its_own_dense_model(out: Path):
    result = compress("bench", str(out), "--rounds", "3", "--sequence", "8")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"1 x 8 +dense .* 1 \(A/A \d\.\d{3}\)", result.stdout)
    assert re.search(r" toy +[\d.]+ +[\d.]+ +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] +\d+\.\d\dx", result.stdout)


def test_bench_times_files_and_runs_against_the_first(out: Path):
    dense = "runs/toy/stages/02-export/dense.onnx"
    result = compress("bench", dense, str(out), str(out / "model.onnx"), "--rounds", "3", "--sequence", "8", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)["latency"]
    assert [row["model"] for row in rows] == ["dense.onnx", "toy", "model.onnx"] * 2
    assert {row["ratio"]["value"] for row in rows if row["model"] == "dense.onnx"} == {1.0}


def test_inspect_shows_a_checkpoint_a_run_and_a_file(out: Path):
    dense, run, file = (compress("inspect", path) for path in ("checkpoint", str(out), str(out / "model.onnx")))
    for result in (dense, run, file):
        assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^ +0 +4 +48 *$", dense.stdout, re.MULTILINE)
    assert "BertForSequenceClassification" in run.stdout
    assert "model.onnx" in run.stdout
    assert "input_ids, attention_mask" in file.stdout


def test_inspect_as_json_agrees_with_the_report(out: Path):
    model = json.loads((out / "report.json").read_text())["model"]
    length = str(model["encoder_macs"]["sequence"])
    for path, which in (("checkpoint", "dense"), (str(out), "compressed")):
        found = json.loads(compress("inspect", path, "--json", "--sequence", length).stdout)
        assert found["parameters"] == model["parameters"][which]
        assert found["encoder_macs"]["macs"] == pytest.approx(model["encoder_macs"][which])


@pytest.mark.parametrize("arguments", [(*APPLY, "-o", "other"), ("bench", "runs/toy"), ("verify", "runs/toy")])
@pytest.mark.usefixtures("out")
def test_without_onnxruntime_the_command_to_install_it_is_named(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = compress(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: onnxruntime cannot be imported")
    assert "pip install 'compressor-onnx[cpu]'" in result.stderr
    assert not list(Path().glob("other*"))


@pytest.mark.parametrize("arguments", [(*APPLY, "-o", "other"), ("bench", "runs/toy"), ("verify", "runs/toy")])
@pytest.mark.usefixtures("out")
def test_two_flavours_of_onnxruntime_are_refused(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    both = ["onnxruntime 1.31.1", "onnxruntime-gpu 1.31.1"]
    monkeypatch.setattr(runtime, "installed_flavours", lambda: both)
    result = compress(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: both onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are installed")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in result.stderr
    assert not list(Path().glob("other*"))


def test_a_plugin_that_cannot_be_imported_stops_only_what_needs_it(
    pruning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(
        tmp_path / "site", "unlucky", {"unheard": "broken_for_run"}, modules={"broken_for_run": "import nothing_like"}
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    needed: Any = compress("apply", pruning, "-o", "needed", "--set", "steps.0.prune.method=unheard")
    assert (needed.exit_code, needed.stdout) == (4, "")
    assert "plugin 'unheard' of unlucky 1.0 (broken_for_run) failed to load: ModuleNotFoundError" in needed.stderr
    assert not list(tmp_path.glob("needed*"))
    assert compress("apply", pruning, "-o", "other").exit_code == 0
