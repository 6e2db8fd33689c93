"""``--json`` is everywhere, and then stdout is one JSON document, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from compressor.cli import VERBS, main
from compressor.errors import PluginError, SetupError
from tests.recipe.conftest import GOOD
from tests.test_cli_recipes import raising


def command(verb: str) -> click.Command:
    with click.Context(main) as context:
        found = main.get_command(context, verb)
    assert found is not None
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(verb: str):
    assert [one.name for one in command(verb).params if "--json" in one.opts] == ["as_json"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_has_a_line_of_help(verb: str):
    options = [one for one in command(verb).params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message", "following"),
    [
        (["components", "fischer"], 2, "no component and no kind is called 'fischer'", "compress components"),
        (["report", "nowhere"], 2, "nowhere", ""),
        (["bench", "a", "--rounds", "1"], 2, "Invalid value for '--rounds'", ""),
        (["export", "nowhere"], 2, "Missing option '--target'", ""),
    ],
)
def test_an_error_is_on_stdout_as_json_and_on_stderr_as_text(
    arguments: list[str], code: int, message: str, following: str
):
    result = CliRunner().invoke(main, [*arguments, "--json"])
    answer = json.loads(result.stdout)["error"]
    assert (result.exit_code, answer["exit_code"]) == (code, code)
    assert message in answer["message"]
    assert answer["next"].startswith(following)
    assert message in result.stderr


def test_every_mistake_of_a_recipe_is_in_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(GOOD.replace("0.5", "half") + "sead: 3\n")
    problems = json.loads(CliRunner().invoke(main, ["plan", "x.yaml", "--json"]).stdout)["error"]["problems"]
    assert "sead" in {one["path"] for one in problems}
    assert all(one["line"] for one in problems)


@pytest.mark.parametrize("error", [SetupError("no oven"), PluginError("no baker"), ValueError("no flour")])
def test_without_json_an_error_leaves_stdout_empty(error: Exception):
    assert CliRunner().invoke(raising(error), ["plugins"]).stdout == ""


def test_a_library_that_is_missing_ends_with_3_and_points_to_doctor():
    result = CliRunner().invoke(raising(ModuleNotFoundError("No module named 'torch'", name="torch")), ["apply"])
    assert result.exit_code == 3
    assert "error: a library cannot be imported: No module named 'torch'\n  next: compress doctor" in result.stderr
    loader = OSError("libcudart.so.13: cannot open shared object file: No such file or directory")
    assert CliRunner().invoke(raising(loader), ["apply"]).exit_code == 3
    own = ImportError("cannot import name 'x'", name="compressor.model")
    assert CliRunner().invoke(raising(own), ["apply"]).exit_code == 70


def test_a_gpu_that_is_full_gets_advice_of_its_own():
    error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
    result = CliRunner().invoke(raising(error), ["apply"])
    assert result.exit_code == 3
    assert "--set calibration.batch_size=8" in result.stderr
    assert "the same command resumes" in result.stderr
