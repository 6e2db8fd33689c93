"""From a clean environment: our wheel, the example's wheel, and the tutorial's commands, one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slow.distributions import build_wheel
from tests.test_docs import blocks
from tests.toys import toy_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "compressor-flap"
PAGE = (ROOT / "docs" / "plugins.md").read_text()


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, in which nothing of this repository can be imported but what was installed."""

    place: Path

    def run(self, command: str, cwd: Path) -> str:
        """Run a shell command in the activated environment; return its stdout."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"PATH": f"{self.place / 'bin'}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PYTEST_ADDOPTS": ""}
        shell = ("bash", "-e", "-c", command)
        done = subprocess.run(shell, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, wheel: Path) -> None:
        """Install a wheel; what it depends on is found where it is."""
        self.run(f"python -m pip install --quiet --disable-pip-version-check --no-deps {wheel}", wheel.parent)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("compressor", "plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return build_wheel(source)


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Environment:
    """An environment with our wheel, which borrows the libraries that it depends on from the one that runs the tests."""
    place = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{sysconfig.get_paths()['platlib']}\n")
    made = Environment(place)
    made.run("python -m pip uninstall --quiet --yes setuptools", tmp_path)  # Python 3.11 brings one too old to build
    made.install(wheel)
    where = made.run("python -c 'import compressor; print(compressor.__file__)'", tmp_path)
    assert where.startswith(str(site))
    return made


def test_the_example_is_installed_listed_tested_and_runs_in_a_recipe(environment: Environment, tmp_path: Path):
    source = tmp_path / "flap"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    environment.install(build_wheel(source))
    (shown,) = json.loads(environment.run("compress components flap --json", tmp_path))
    assert shown["provider"] == {"distribution": "compressor-flap", "version": "0.1.0", "module": "compressor_flap"}
    pins = environment.run("compress plugins --requirements", tmp_path).splitlines()
    assert "compressor-flap==0.1.0" in pins
    assert any(pin.startswith("compressor-onnx==") for pin in pins)
    environment.run("compress check recipe.yaml", source)
    shutil.rmtree(source / "src")  # the test is of what was installed
    environment.run("python -m pytest -q tests", source)
    toy_recipe(tmp_path, steps=[{"prune": {"method": "flap", "target": {"macs": 0.5}}}])
    report = json.loads(environment.run("compress apply recipe.yaml -o out --json", tmp_path))
    macs = report["model"]["encoder_macs"]
    assert 0 < macs["compressed"] <= 0.5 * macs["dense"]
    assert "compressor-flap 0.1.0 (compressor_flap)" in (tmp_path / "out" / "recipe.lock.yaml").read_text()


def offline(command: str, wheel: Path) -> str:
    """Return a command as it runs without a network: our wheel stands for the index, builds take the tools at hand."""
    replaced = command.replace('-c constraints.txt ".[cpu]" pytest', f"--no-deps {wheel}")
    replaced = replaced.replace("pip install -e", "pip install --no-build-isolation -e")
    return re.sub(r"^(?=(pip|pytest) )", "python -m ", replaced).replace("--wheel", "--wheel --no-isolation")


def test_every_command_of_the_tutorial_runs_in_its_order(environment: Environment, wheel: Path, tmp_path: Path):
    tutorial = PAGE.partition("## Components")[0]
    commands = [line for block in blocks(tutorial, "bash") for line in block.splitlines()]
    files = {"toys.py": "tiny_checkpoint", "recipe.yaml": "name: tempered"}
    parts = [*blocks(tutorial, "python"), *blocks(tutorial, "yaml")]
    place, printed = tmp_path, ""
    for command in commands:
        if command.startswith(("python -m venv", ". env")):
            continue  # the fixture made it
        if command.startswith("cd "):
            place /= command.removeprefix("cd ")
            (code,) = [part for part in parts if "class TemperedSnip" in part]
            (place / "src/tempered_snip/__init__.py").write_text(code)
            for name, mark in files.items():
                (text,) = [part for part in parts if mark in part]
                (place / name).write_text(text)
        else:
            printed += environment.run(offline(command, wheel), place)
    assert "criterion tempered-snip, from tempered-snip 0.1.0 (tempered_snip)" in printed
    assert "1 passed" in printed
    assert "tempered-snip==0.1.0" in printed
    assert (place / "out" / "model.onnx").is_file()
    assert list((place / "dist").glob("tempered_snip-0.1.0-*.whl"))


@pytest.mark.parametrize("kind", ["method", "criterion"])
def test_a_written_package_passes_its_own_test_when_it_is_installed(
    kind: str, environment: Environment, tmp_path: Path
):
    environment.run(f"compress new-plugin of-mine --kind {kind}", tmp_path)
    place = tmp_path / "of-mine"
    environment.run("python -m pip install --quiet --no-build-isolation --no-deps -e .", place)
    environment.run("python -m pytest -q", place)
    environment.run("compress components of-mine", place)
