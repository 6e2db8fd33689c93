from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from compressor.cli import VERBS, main
from compressor.cli.completing import PROGRAM, SHELLS, VARIABLE


def completed(*arguments: str) -> list[str]:
    """Return what completes the last of the arguments."""
    *before, last = arguments
    return [item.value for item in ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(before, last)]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_this_program(shell: str):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    assert json.loads(CliRunner().invoke(main, ["completion", shell, "--json"]).stdout)["shell"] == shell


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_can_read_its_script():
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)  # noqa: S607 - whatever bash there is


def test_verbs_options_and_values_are_completed():
    assert set(completed("")) == set(VERBS)
    assert completed("app") == ["apply"]
    assert {"--model", "--set", "--json"} <= set(completed("apply", "--"))
    assert completed("apply", "--device", "c") == ["cpu", "cuda"]
    assert completed("completion", "") == list(SHELLS)


def test_components_and_kinds_are_completed():
    assert completed("components", "fish") == ["fisher"]
    assert completed("components", "meth") == ["method"]


@pytest.mark.parametrize("verb", ["apply", "sweep", "check", "plan"])
def test_recipes_and_directories_are_completed(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("my.yaml", "notes.txt", "recipes/half.yml"):
        Path(name).touch()
    assert completed(verb, "") == ["my.yaml", "recipes/"]
    assert completed(verb, "recipes/") == ["recipes/half.yml"]
    assert completed(verb, f"{tmp_path}/m") == [f"{tmp_path}/my.yaml"]
    assert completed(verb, "nowhere/") == []


def test_completing_imports_no_torch():
    program = (
        "import sys, os\n"
        f"os.environ |= {{'{VARIABLE}': 'bash_complete', 'COMP_WORDS': 'compress components fi', 'COMP_CWORD': '2'}}\n"
        "from compressor.cli import main\n"
        f"try: main(prog_name='{PROGRAM}')\nexcept SystemExit: pass\n"
        "found = {'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets'} & set(sys.modules)\nassert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "plain,fisher\n"), done.stderr
