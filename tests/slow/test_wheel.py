"""What is shipped: the wheel holds both packages and nothing else, and works from an empty directory.

The wheel is made from the source distribution, as pip makes it where there is no wheel.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.slow.distributions import build_both, install_wheel, run
from tests.toys import toy_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that was made from it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("compressor", "plugins", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return build_both(source)


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel was installed, alone."""
    site = tmp_path_factory.mktemp("site")
    install_wheel(wheel, site)
    return site


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"compressor_onnx-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"compressor", "compressor_plugins", info}
    assert "compressor/verify/templates/page.html" in names
    templates = {
        f"compressor/plugin/templates/{path.name}" for path in (ROOT / "compressor/plugin/templates").iterdir()
    }
    assert templates <= set(names)
    assert {"compressor/py.typed", "compressor_plugins/py.typed", f"{info}/licenses/LICENSE"} <= set(names)
    sources = {
        str(path.relative_to(root))
        for root, package in ((ROOT, "compressor"), (ROOT / "plugins", "compressor_plugins"))
        for path in (root / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == sources


def test_the_source_distribution_holds_what_the_wheel_is_made_of(built: tuple[Path, Path]):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2].removeprefix("plugins/") for name in archive.getnames()}
    sources = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    assert sources <= inside
    assert {"pyproject.toml", "README.md", "LICENSE"} <= inside


def test_the_installed_wheel_has_two_names_for_one_command(site: Path, tmp_path: Path):
    help_of_module = run(sys.executable, "-m", "compressor", "--help", cwd=tmp_path, path=site)
    assert help_of_module == run(str(site / "bin" / "compress"), "--help", cwd=tmp_path, path=site)
    assert json.loads(run(sys.executable, "-m", "compressor", "doctor", "--json", cwd=tmp_path, path=site))["usable"]


def test_the_wheel_declares_every_entry_point(wheel: Path):
    declared = ConfigParser(delimiters=("=",))
    with zipfile.ZipFile(wheel) as archive:
        declared.read_string(archive.read(f"compressor_onnx-{PROJECT['version']}.dist-info/entry_points.txt").decode())
    assert dict(declared["compressor"]) == PROJECT["entry-points"]["compressor"]
    assert dict(declared["console_scripts"]) == PROJECT["scripts"]


def test_the_installed_wheel_finds_its_plugins_through_entry_points(site: Path, tmp_path: Path):
    where = "import compressor, compressor_plugins as p; print(compressor.__file__, p.__file__)"
    assert run(sys.executable, "-c", where, cwd=tmp_path, path=site).count(str(site)) == 2
    found = json.loads(run(str(site / "bin" / "compress"), "plugins", "--json", cwd=tmp_path, path=site))
    assert {row["entry_point"] for row in found} == set(PROJECT["entry-points"]["compressor"])
    assert {row["error"] for row in found} == {None}
    listed = run(str(site / "bin" / "compress"), "components", cwd=tmp_path, path=site)
    for name in ("fisher", "bert", "distilbert", "glue", "text-classification", "embedding", "onnx"):
        assert f" {name} " in listed


def test_the_installed_wheel_runs_a_recipe(site: Path, tmp_path: Path):
    toy_recipe(tmp_path, steps=[{"prune": {"method": "fisher", "target": {"macs": 0.5}}}])
    output = run(str(site / "bin" / "compress"), "apply", "recipe.yaml", "--json", cwd=tmp_path, path=site)
    macs = json.loads(output)["model"]["encoder_macs"]
    assert macs["compressed"] <= 0.5 * macs["dense"]
