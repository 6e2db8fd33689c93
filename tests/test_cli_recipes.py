from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from compressor.cli import VERBS, boundary, main
from compressor.errors import InputError, PluginError, SetupError
from tests.plugin.distributions import TOYS, install
from tests.recipe.conftest import GOOD

ROOT = Path(__file__).parents[1]
DOUBLE = """
from compressor.plugin import hookimpl
from tests.plugin.toy_plugin import Magnitude

class Double(Magnitude):
    name = "sailor"

@hookimpl
def compressor_components():
    yield Double
"""
HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "datasets")


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the toys beside the first-party plugins; return a directory for recipes."""
    install(tmp_path / "site", "toy-distribution", TOYS, version="2.5")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compress(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, list(arguments))


def recipe(directory: Path, text: str = GOOD, name: str = "x.yaml") -> str:
    """Write a recipe and return its name."""
    (directory / name).write_text(text)
    return name


def raising(error: BaseException) -> click.Group:
    """Return a command line whose only verb raises."""

    @click.group(cls=type(main))
    def failing() -> None:
        raise error

    return failing


def test_help_lists_every_verb_with_a_line_of_help():
    result = compress("--help")
    assert result.exit_code == 0
    assert all(f"  {verb} " in result.output for verb in VERBS)


def test_every_verb_of_the_table_is_a_command_of_that_name():
    with click.Context(main) as context:
        commands = {verb: main.get_command(context, verb) for verb in VERBS}
    assert {command.name for command in commands.values() if command} == set(VERBS)


def test_the_help_of_a_verb_is_its_line_in_the_table():
    table = " ".join(compress("--help").output.split())
    for verb, (_, text) in VERBS.items():
        assert text in table
        assert text in " ".join(compress(verb, "-h").output.split())


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion():
    result = compress("chek", "x.yaml")
    assert result.exit_code == 2
    assert "unknown command 'chek'; did you mean 'check'?" in result.stderr


def test_check_says_ok_and_the_digest(toys: Path):
    result = compress("check", recipe(toys))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("x.yaml: ok (")


def test_check_reports_every_mistake_of_every_recipe(toys: Path):
    bad = recipe(toys, GOOD.replace("macs: 0.5", "macs: high").replace("seed: 3", "sede: 3"), "bad.yaml")
    result = compress("check", recipe(toys), bad, "absent.yaml")
    assert result.exit_code == 2
    assert result.stdout.startswith("x.yaml: ok (")
    assert result.stderr.splitlines() == [
        "error: 2 mistakes",
        "bad.yaml:5  sede: unknown option 'sede'; did you mean 'seed'?",
        "bad.yaml:9  steps.0.prune.target.macs: expected a number in (0, 1], got 'high'",
        "error: absent.yaml  no such file",
    ]


def test_check_as_json_is_one_document_on_stdout(toys: Path):
    result = compress("check", "--json", recipe(toys), recipe(toys, "model: 3", "bad.yaml"))
    good, bad = json.loads(result.stdout)
    assert result.exit_code == 2
    assert (good["problems"], len(good["digest"]), bad["digest"]) == ([], 64, None)
    assert {"source": "bad.yaml", "line": 1, "path": "model", "message": "expected text, got 3"} in bad["problems"]


def test_plan_shows_stages_calls_digest_and_remarks(toys: Path):
    path = recipe(toys, GOOD.replace(", gates: {latency: 0.8}", ""))
    result = compress("plan", path, "-m", "owner/other", "--set", "steps.0.prune.target.macs=0.25")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        "toy (x.yaml), seed 3",
        "  load       owner/other for toy-task(max_length=16)",
        "  calibrate  64 samples of the train split, batches of 32, seed 3",
        "  01-prune   prune(toy(target=Target(macs=0.25), criterion=sailor(samples=7)))",
        "  02-export  export(toy-format())",
        "  03-verify  verify(batch=(1, 8))",
    ]
    assert lines[6].startswith("digest ")
    assert lines[7].startswith("note: steps.2.verify: no gates")


def test_plan_as_json_holds_every_option_and_provider(toys: Path):
    data = json.loads(compress("plan", "--json", recipe(toys)).stdout)
    assert data["recipe"]["steps"][0]["prune"]["criterion"] == {"name": "sailor", "samples": 7, "inner": None}
    assert data["providers"]["criterion:sailor"]["version"] == "2.5"
    assert [step["slug"] for step in data["steps"]] == ["01-prune", "02-export", "03-verify"]


def test_a_bad_plan_prints_its_mistakes_to_stderr_only(toys: Path):
    result = compress("plan", recipe(toys, "steps: 3"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "x.yaml:1  steps: expected a list, got 3" in result.stderr


@pytest.mark.usefixtures("toys")
def test_components_lists_all_or_one_kind_and_explains_one():
    everything = compress("components").stdout
    assert "sailor" in everything
    assert "verification" in everything
    criteria = compress("components", "criterion").stdout
    assert "extent" in criteria
    assert "toy-task" not in criteria
    explained = compress("components", "sailor").stdout
    assert explained.startswith("criterion sailor, from toy-distribution 2.5 (tests.plugin.toy_plugin)\n")
    assert "  samples: an integer >= 1; default 1024\n      Rows looked at.\n" in explained
    assert "target: a mapping of macs, params" in compress("components", "toy").stdout


@pytest.mark.usefixtures("toys")
def test_components_as_json_and_an_unknown_word():
    (sailor,) = json.loads(compress("components", "sailor", "--json").stdout)
    assert sailor["provider"]["distribution"] == "toy-distribution"
    assert sailor["options"][0] == {
        "name": "samples",
        "expects": "an integer >= 1",
        "required": False,
        "default": 1024,
        "description": "Rows looked at.",
    }
    result = compress("components", "sailer")
    assert result.exit_code == 2
    assert "no component and no kind is called 'sailer'; did you mean 'sailor'?" in result.stderr


def test_plugins_names_what_failed_and_goes_on(toys: Path):
    install(toys / "site", "unlucky", {"bad": "broken_for_cli"}, modules={"broken_for_cli": "import nothing_like_it"})
    result = compress("plugins")
    assert result.exit_code == 0
    assert "plugin 'bad' of unlucky 1.0 (broken_for_cli) failed to load: ModuleNotFoundError" in result.stdout
    rows = {row["entry_point"]: row for row in json.loads(compress("plugins", "--json").stdout)}
    assert "criterion:sailor" in rows["toys"]["components"]
    assert (rows["toys"]["error"], rows["bad"]["components"]) == (None, [])
    assert "toy-distribution==2.5" in compress("plugins", "--requirements").stdout.splitlines()
    assert compress("check", recipe(toys)).exit_code == 0


def test_plugins_shows_two_that_clash_and_other_verbs_refuse(toys: Path):
    install(toys / "site", "zz-double", {"zz": "double_for_cli"}, modules={"double_for_cli": DOUBLE})
    shown = compress("plugins")
    assert shown.exit_code == 0
    assert re.search(r"plugin '(zz|toys)' of .* failed to load: criterion 'sailor' is provided twice: by", shown.stdout)
    for verb in (("check", recipe(toys)), ("components",), ("schema",)):
        result = compress(*verb)
        assert result.exit_code == 4
        assert "toy-distribution 2.5" in result.stderr
        assert "zz-double 1.0" in result.stderr


def test_a_recipe_that_needs_a_failed_plugin_ends_with_4(toys: Path):
    install(
        toys / "site", "unlucky", {"unheard": "broken_for_cli"}, modules={"broken_for_cli": "import nothing_like_it"}
    )
    result = compress("check", recipe(toys, GOOD.replace("method: toy", "method: unheard")))
    assert result.exit_code == 4
    assert "error: method 'unheard' is not available: plugin 'unheard' of unlucky 1.0" in result.stderr


def test_schema_is_json_over_what_is_installed(toys: Path):
    schema = json.loads(compress("schema").stdout)
    assert "toy-task" in schema["$defs"]["task"]["anyOf"][0]["enum"]
    assert toys.is_dir()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("the cake is a lie", hint="bake one"), 2, "error: the cake is a lie\n  next: bake one\n"),
        (SetupError("no oven"), 3, "error: no oven\n"),
        (PluginError("the baker failed"), 4, "error: the baker failed\n"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA: no\nmore"), 3, "error: CUDA: no\n"),  # as torch calls it
        (MemoryError(), 3, "error: out of memory\n"),
        (OSError(28, "No space left on device"), 3, "error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_becomes_a_message_and_its_exit_code(error: BaseException, code: int, text: str):
    result = CliRunner().invoke(raising(error), ["plugins"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(text)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_only_interrupted_runs_and_sweeps_are_said_to_resume(error: BaseException):
    said = {verb: CliRunner().invoke(raising(error), [verb]).stderr for verb in VERBS}
    assert {verb for verb in VERBS if "the same command resumes" in said[verb]} == {"apply", "sweep"}


def test_what_a_plugin_raised_is_in_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    error = PluginError("the baker failed", hint="ask the baker")
    error.__cause__ = ZeroDivisionError("no flour")
    log = tmp_path / "compressor" / "error.log"
    result = CliRunner().invoke(raising(error), ["plugins"])
    assert result.stderr == f"error: the baker failed\n  next: ask the baker\n  traceback: {log}\n"
    assert "ZeroDivisionError: no flour" in log.read_text()


def test_a_plugin_error_without_a_cause_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "traceback" not in CliRunner().invoke(raising(PluginError("two bakers")), ["plugins"]).stderr
    assert not list(tmp_path.iterdir())


def test_a_bug_ends_with_70_one_line_and_the_traceback_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(raising(ValueError("one\ntwo")), ["plugins"])
    log = tmp_path / "compressor" / "error.log"
    assert result.exit_code == 70
    assert result.stderr == f"internal error: ValueError: one (traceback in {log}; please report it)\n"
    assert "Traceback (most recent call last):" in log.read_text()
    assert "ValueError: one\ntwo" in log.read_text()


def test_the_log_of_a_bug_goes_elsewhere_when_its_place_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    log = boundary.write_log(ValueError("x"))
    assert "ValueError: x" in log.read_text()
    log.unlink()
    log.parent.rmdir()


def test_what_a_verb_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch):
    gate = click.Command("gate", callback=lambda: 1)
    monkeypatch.setitem(VERBS, "gate", (f"{__name__}:gate", "Fails."))
    monkeypatch.setitem(globals(), "gate", gate)
    assert CliRunner().invoke(main, ["gate"]).exit_code == 1


BROKEN: dict[str, Any] = {
    "missing file": None,
    "empty": "",
    "tab": "a:\n\tb: 1",
    "list": "- a",
    "unknown method": GOOD.replace("method: toy", "method: tyo"),
    "wrong type": GOOD.replace("0.5", "half"),
    "unknown family of steps": GOOD.replace("- export", "- compile"),
    "duplicate": GOOD + "seed: 3\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recipe_ends_with_2_and_no_traceback(toys: Path, name: str):
    if BROKEN[name] is not None:
        recipe(toys, BROKEN[name])
    for verb in ("check", "plan"):
        result = compress(verb, "x.yaml")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.output
        assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "code", "absent"),
    [
        (["--help"], 0, (*HEAVY, "pydantic", "pluggy", "rich", "yaml", "compressor_plugins", "compressor.plugin")),
        (["--version"], 0, (*HEAVY, "pydantic", "pluggy", "rich", "yaml", "compressor_plugins", "compressor.plugin")),
        (["check", "x.yaml"], 0, HEAVY),
        (["check", "broken.yaml"], 2, HEAVY),
        (["apply", "broken.yaml"], 2, HEAVY),
        (["sweep", "x.yaml"], 2, HEAVY),
        (["plan", "x.yaml", "--json"], 0, HEAVY),
        (["components"], 0, HEAVY),
        (["plugins"], 0, HEAVY),
        (["schema"], 0, HEAVY),
    ],
)
def test_without_a_model_torch_is_not_imported(toys: Path, arguments: list[str], code: int, absent: tuple[str, ...]):
    recipe(toys)
    recipe(toys, GOOD.replace("0.5", "half"), "broken.yaml")
    program = (
        "import sys\nfrom compressor.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert end.code == {code}, end.code\n"
        f"found = set({absent!r}) & set(sys.modules)\nassert not found, found\n"
    )
    paths = os.pathsep.join([str(toys / "site"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=toys,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
