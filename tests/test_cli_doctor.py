from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants

from compressor.cli import main
from compressor.model import runtime
from compressor.run import doctor as module
from compressor.run import imports
from tests.plugin.distributions import install

HEALTHY: Mapping[str, dict[str, Any]] = {
    "torch": {"cuda": None, "gpus": [], "threads": 1},
    "transformers": {},
    "datasets": {},
    "onnx": {},
    "onnxruntime": {"providers": ["CPUExecutionProvider"]},
}
ZEN = {"cpu": "Zen", "cpu_features": ["avx2", "avx512_vnni"], "cores": 8, "usable_cores": 4, "load_average": 0.5}


@pytest.fixture(autouse=True)
def _well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is wrong; a test spoils one thing."""
    monkeypatch.setattr(module, "answers", lambda: HEALTHY)
    monkeypatch.setattr(module, "environment", lambda: ZEN)
    monkeypatch.setattr(module, "cpu_quota", lambda: None)
    monkeypatch.setattr(module, "gpus", lambda: {"devices": []})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def compress(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def findings(*, usable: bool = True) -> dict[str, dict[str, str]]:
    """Run doctor, see that its exit code says what its answer says; return what is not ok, by name."""
    result = compress("--json")
    answer = json.loads(result.stdout)
    assert (answer["usable"], result.exit_code) == (usable, 0 if usable else 3), result.output
    return {one["name"]: one for one in answer["findings"] if one["status"] != "ok"}


def test_a_healthy_installation_has_nothing_but_ok_and_ends_with_0():
    assert findings() == {}
    result = compress()
    assert {line.split()[0] for line in result.stdout.splitlines()[:-1]} == {"ok"}
    assert result.stdout.splitlines()[-1] == "0 problems, 0 warnings"
    for name in ("torch", "transformers", "onnxruntime", "providers cpu", "avx512_vnni", "4 usable of 8", "hub cache"):
        assert name in result.stdout


@pytest.mark.parametrize("library", ["torch", "onnxruntime"])
def test_a_library_that_cannot_be_imported_is_a_problem_with_the_command_that_mends_it(
    library: str, monkeypatch: pytest.MonkeyPatch
):
    broken = {**HEALTHY, library: {"error": "ImportError: libgomp.so.1: cannot open shared object file"}}
    monkeypatch.setattr(module, "answers", lambda: broken)
    (problem,) = findings(usable=False).values()
    assert problem["name"] == library
    assert "libgomp" in problem["found"]
    assert "pip install " in problem["next"]


@pytest.mark.parametrize(("name", "found"), [("torch", "not installed"), ("torch", "2.1.0")])
def test_a_library_that_is_missing_or_too_old_is_named_with_the_version_to_install(
    name: str, found: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_version", lambda asked: {name: None if "not" in found else found}.get(asked, "9999"))
    problems = findings(usable=False)
    assert problems[name]["found"] == f"{found}; expected torch>=2.9"
    assert problems[name]["next"] == "pip install 'torch>=2.9'"


@pytest.mark.parametrize(
    ("flavours", "said"),
    [([], "not installed"), (["onnxruntime 1.2", "onnxruntime-gpu 1.2"], "their files overwrite each other")],
)
def test_no_runtime_and_two_runtimes_are_problems(flavours: list[str], said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "installed_flavours", lambda: flavours)
    assert said in findings(usable=False)["onnxruntime"]["found"]


def test_flavours_are_those_the_sessions_refuse():
    assert module.installed_flavours is runtime.installed_flavours


def test_who_else_owns_the_import_name_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path / "site", "django-compressor", {}, version="4.5")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "pip uninstall -y django-compressor" in findings(usable=False)["import name"]["next"]


def test_a_plugin_that_failed_to_load_is_a_warning_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path / "site", "unlucky", {"t5s": "broken_family"}, modules={"broken_family": "import nothing_like_it"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    warning = findings()["plugins"]
    assert "plugin 't5s' of unlucky 1.0" in warning["found"]
    assert "pip uninstall unlucky" in warning["next"]


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"cpu_features": ["avx2"]}, "cpu", "weights of 7 bits here by default (reduce_range: auto)"),
        ({"load_average": 3.5}, "load", "nothing else runs"),
    ],
)
def test_what_spoils_measurements_is_a_warning(
    change: dict[str, Any], name: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "environment", lambda: ZEN | change)
    assert said in findings()[name]["next"]


def test_a_container_with_less_time_than_cores_is_told_how_many_threads_to_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "cpu_quota", lambda: 1.5)
    warning = findings()["cores"]
    assert "the container may use the time of 1.5" in warning["found"]
    assert "threads: 1" in warning["next"]


def test_a_gpu_that_torch_and_onnxruntime_do_not_use_is_two_warnings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "gpus", lambda: {"devices": ["NVIDIA T4, 595.1"]})
    found = findings()
    assert set(found) == {"gpu", "onnxruntime"}
    assert "NVIDIA T4, 595.1, which torch (built without CUDA) does not see" in found["gpu"]["found"]
    seen = {
        **HEALTHY,
        "torch": {"cuda": "13.0", "gpus": ["T4"]},
        "onnxruntime": {"providers": ["CUDAExecutionProvider"]},
    }
    monkeypatch.setattr(module, "answers", lambda: seen)
    assert findings() == {}


def test_offline_is_a_warning_and_the_cache_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert constants.HF_HUB_CACHE in findings()["hub"]["found"]


@pytest.mark.parametrize("name", ["current directory", "latency tables"])
def test_a_place_that_cannot_be_written_is_a_problem_where_runs_go(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usable = name != "current directory"
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(module, "cache", lambda: place if usable else tmp_path)
    monkeypatch.chdir(tmp_path if usable else place)
    allowed = os.access
    monkeypatch.setattr(module.os, "access", lambda path, mode: Path(path) != place and allowed(path, mode))
    assert findings(usable=usable)[name]["found"] == f"{place} cannot be written"


def test_libraries_are_asked_in_processes_of_their_own_and_what_went_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
):
    asked = {
        "well": "print('chatter')\nfound = {'version': 1}",
        "missing": "import nothing_like_it",
        "crashing": "import os; os.abort()",
    }
    monkeypatch.setattr(imports, "QUESTIONS", asked)
    assert imports.answers() == {
        "well": {"version": 1},
        "missing": {"error": "ModuleNotFoundError: No module named 'nothing_like_it'"},
        "crashing": {"error": "Python ended with -6"},
    }


def test_a_library_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imports, "QUESTIONS", {"hanging": "import time; time.sleep(600)"})
    monkeypatch.setattr(imports, "PATIENCE", 0.2)
    assert imports.answers() == {"hanging": {"error": "no answer within 0.2 s"}}


def test_python_dash_m_is_the_command_and_doctor_needs_no_torch_in_its_own_process(tmp_path: Path):
    program = (
        "import sys, runpy\nfrom compressor.run import imports\nimports.QUESTIONS.clear()\n"
        "heavy = ('torch', 'transformers', 'onnx', 'onnxruntime', 'datasets')\n"
        "sys.modules.update(dict.fromkeys(heavy))\nsys.argv[1:] = ['doctor']\n"
        "runpy.run_module('compressor', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 problems" in done.stdout
