"""A plugin in a distribution of its own, as a third party would publish it, is installed and named in a recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.slow.distributions import build_wheel, install_wheel, run
from tests.toys import toy_recipe

pytestmark = pytest.mark.slow
COMPRESS = Path(sys.executable).with_name("compress")
PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "first-units"
version = "0.3"
dependencies = ["compressor-onnx"]

[project.entry-points.compressor]
first-units = "first_units"

[tool.setuptools]
py-modules = ["first_units"]
"""
MODULE = '''\
"""Keep the first units of every sublayer."""

from pydantic import Field

from compressor.plugin import Pruned, PruningMethod, hookimpl


class FirstUnits(PruningMethod):
    """Keep as many units as asked, the first ones."""

    name = "first-units"

    kept: float = Field(gt=0, le=1, description="Fraction of the units that stays.")

    def prune(self, session):
        import torch

        from compressor.model import Masks

        return Pruned(Masks({g.name: torch.arange(g.units) < self.kept * g.units for g in session.groups}))


@hookimpl
def compressor_components():
    yield FirstUnits
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the distribution was built and installed."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "first_units.py").write_text(MODULE)
    install_wheel(build_wheel(source), site)
    return site


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a recipe that names the plugin's method."""
    toy_recipe(tmp_path, steps=[{"prune": {"method": "first-units", "kept": 0.5}}])
    return tmp_path


def test_a_recipe_names_an_installed_plugin_and_runs(site: Path, place: Path):
    report = json.loads(run(str(COMPRESS), "apply", "recipe.yaml", "-o", "out", "--json", cwd=place, path=site))
    assert [step["call"] for step in report["steps"]] == ["prune(first-units(kept=0.5))"]
    layers = json.loads(run(str(COMPRESS), "inspect", "out", "--json", cwd=place, path=site))["layers"]
    assert [(layer["heads"], layer["ffn_neurons"]) for layer in layers] == [(2, 24)] * 3
    lock = yaml.safe_load((place / "out" / "recipe.lock.yaml").read_text())
    assert "first-units 0.3 (first_units)" in json.dumps(lock)


def test_an_installed_plugin_is_listed_with_its_provider_and_options(site: Path, place: Path):
    (shown,) = json.loads(run(str(COMPRESS), "components", "first-units", "--json", cwd=place, path=site))
    assert shown["provider"] == {"distribution": "first-units", "version": "0.3", "module": "first_units"}
    assert [option["name"] for option in shown["options"]] == ["kept"]
    assert "first-units==0.3" in run(str(COMPRESS), "plugins", "--requirements", cwd=place, path=site).splitlines()


def test_without_the_plugin_the_same_recipe_is_refused(place: Path):
    done = subprocess.run(
        [str(COMPRESS), "check", "recipe.yaml"], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown method 'first-units'" in done.stderr
