"""A plugin that misbehaves is named and harms nothing; the command line says which one, and how to start a new one."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.plugin import Registry
from compressor.plugin.scaffold import Scaffold
from tests.lookup import hurry
from tests.plugin.distributions import install
from tests.toys import toy_recipe

ROOT = Path(__file__).parents[1]
MODULE = """
import torch
from collections.abc import Callable
from typing import Any
from pydantic import Field
from compressor.plugin import Criterion, Pruned, PruningMethod, RunningScores, hookimpl

class Fine(PruningMethod):
    '''Keep the first units.'''
    name = "fine"
    def prune(self, session):
        from compressor.model import Masks
        return Pruned(Masks({{g.name: torch.arange(g.units) < max(1, g.units - 1) for g in session.groups}}))

class Faulty(Fine):
    '''Do something that a method must not.'''
    name = "faulty"
    {option}
    def prune(self, session):
        {fault}
        return super().prune(session)

class Careless(Criterion):
    '''Score nothing well.'''
    name = "careless"
    def start(self, targets):
        def score(weight, _):
            {score}
            return weight.abs()
        return RunningScores(targets, score, decay=0.0, gradients=False)

@hookimpl
def compressor_components():
    yield from (Fine, Faulty, Careless)
"""
FAULTS = {
    "raise ZeroDivisionError('a bug')": "failed: ZeroDivisionError: a bug",
    "return 3": "prune returned int; expected Pruned(masks=Masks)",
    "session.model.get_submodule(session.groups[0].block).register_forward_hook(lambda *_: None)": "left hooks on bert.",
    "session.model.register_full_backward_hook(lambda *_: None)": "left hooks on the model itself",
    "next(session.model.parameters()).data.add_(1.0)": "changed the weights bert.embeddings",
    "session.model.train()": "changed training or eval mode of the model itself",
    "session.model.requires_grad_(True)": "changed requires_grad of bert.embeddings",
    "session.model.classifier.forward = lambda x: x": "changed the modules classifier",
    "torch.nn.utils.parametrize.register_parametrization(session.model.classifier, 'weight', torch.nn.Identity())": (
        "changed the modules classifier"
    ),
    "session.artifacts = {}": "assigned to session.artifacts",
}
NAME = "step 02-prune: method 'faulty' (faulty)"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that writes the plugin's module anew; it is installed beside the exporter that takes no time."""
    hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    install(site, "unlucky", {"faulty": "faulty"}, version="0.3")
    install(site, "lookups", {"lookup": "tests.lookup"})

    def write(*, fault: str = "pass", option: str = "", score: str = "pass") -> None:
        sys.modules.pop("faulty", None)
        (site / "faulty.py").write_text(MODULE.format(fault=fault, option=option, score=score))

    return write


def compress(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines(result: Result) -> str:
    return " ".join(result.stderr.split())


def recipe(place: Path, *steps: dict[str, object]) -> Path:
    last = [{"export": {"format": "lookup"}}, {"verify": {"sequence": 8, "rounds": 3}}]
    path = toy_recipe(place)
    content = yaml.safe_load(path.read_text())
    content["steps"] = [*({"prune": step} for step in steps), *last]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_method_that_misbehaves_is_named_with_exit_code_4_and_the_run_goes_on_when_it_is_mended(
    tmp_path: Path, write: Callable[..., None]
):
    path = recipe(tmp_path, {"method": "fine"}, {"method": "faulty"})
    for number, (fault, message) in enumerate(FAULTS.items()):
        write(fault=fault)
        result = compress("apply", path, "-o", "out")
        assert (result.exit_code, (tmp_path / "out").exists()) == (4, False), lines(result)
        assert NAME in lines(result)
        assert message in lines(result)
        assert ("01-prune was finished before" in lines(result)) == (number > 0)
    write()
    result = compress("apply", path, "-o", "out")
    assert result.exit_code == 0, lines(result)
    assert "01-prune was finished before" in lines(result)
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("raise ValueError('no rows')", "criterion 'careless' (faulty) failed: ValueError: no rows"),
        ("weight.add_(1.0)", "it (with criterion 'careless' (faulty)) changed the weights"),
    ],
)
def test_a_criterion_inside_our_method_is_the_one_that_is_named(
    tmp_path: Path, write: Callable[..., None], score: str, message: str
):
    write(score=score)
    step = {"method": "one_shot", "criterion": "careless", "pattern": "1x1", "target": {"sparsity": 0.5}}
    result = compress("apply", recipe(tmp_path, step), "-o", "out")
    assert result.exit_code == 4, lines(result)
    assert message in lines(result)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("amount: Callable[[], int] = Field(default=None)", "an option has a type that YAML cannot give"),
        ("amount: torch.Tensor = None", "Unable to generate pydantic-core schema"),
        ("amount: 'Decimal' = 0", "import the types of options outside TYPE_CHECKING"),
    ],
)
def test_an_option_of_a_type_that_no_recipe_can_give_is_reported_with_exit_code_4(
    tmp_path: Path, write: Callable[..., None], option: str, reason: str
):
    write(option=option)
    result = compress("check", recipe(tmp_path, {"method": "faulty"}))
    assert result.exit_code == 4
    assert "method 'faulty' is not available: plugin 'faulty' of unlucky 0.3 (faulty) failed to load" in lines(result)
    assert reason in lines(result)
    assert compress("components", "method").exit_code == 0
    assert reason in " ".join(compress("plugins").stdout.split())


def test_a_name_that_two_packages_provide_is_reported_with_both_and_exit_code_4(
    tmp_path: Path, write: Callable[..., None]
):
    write()
    site = tmp_path / "site"
    source = (site / "faulty.py").read_text()
    install(site, "second", {"again": "second_faulty"}, version="2.0", modules={"second_faulty": source})
    result = compress("check", recipe(tmp_path, {"method": "fine"}))
    assert result.exit_code == 4
    assert "method 'fine' is provided twice" in lines(result)
    for provider in ("unlucky 0.3 (faulty)", "second 2.0 (second_faulty)"):
        assert provider in lines(result)


def test_the_requirements_of_plugins_are_lines_for_pip(write: Callable[..., None]):
    write()
    found = compress("plugins", "--requirements").stdout.splitlines()
    assert {"unlucky==0.3", "lookups==1.0"} < set(found)
    assert [line.partition("==")[1] for line in found] == ["=="] * len(found)


@pytest.mark.parametrize("kind", ["method", "criterion"])
def test_a_new_plugin_is_a_package_whose_parts_name_each_other(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = compress("new-plugin", "row-norm", "--kind", kind)
    assert result.exit_code == 0, result.stderr
    files = {str(path.relative_to("row-norm")) for path in Path("row-norm").rglob("*.*") if path.is_file()}
    assert files == {
        "pyproject.toml",
        "README.md",
        "recipe.yaml",
        "src/row_norm/__init__.py",
        "tests/test_row_norm.py",
    }
    assert 'row-norm = "row_norm"' in Path("row-norm/pyproject.toml").read_text()
    assert "row-norm" in Path("row-norm/recipe.yaml").read_text()
    body = Path("row-norm/src/row_norm/__init__.py").read_text()
    assert "class RowNorm(" in body
    assert all(len(line) <= 120 for line in body.splitlines())
    assert "$" not in body.replace("{", "")


def test_the_extra_dev_of_a_new_plugin_has_what_its_commands_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert compress("new-plugin", "row-norm").exit_code == 0
    guide = (ROOT / "docs" / "plugins.md").read_text() + Path("row-norm/README.md").read_text()
    programs = set(re.findall(r"^(?:python -m )?(build|pytest)\b", guide, re.MULTILINE))
    assert programs == {"build", "pytest"}
    for package in (Path("row-norm"), ROOT / "examples" / "compressor-flap"):
        extra = tomllib.loads((package / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
        assert {re.split(r"\W", one)[0] for one in extra} == programs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fisher", "method 'fisher' is taken: compressor-onnx"),
        ("Row-Norm", "'Row-Norm' is no package name"),
        ("row--norm", "'row--norm' is no package name"),
        ("../norm", "'../norm' is no package name"),
        ("class", "'class' is no package name"),
        ("numpy", "a module 'numpy' is installed already"),
        ("there", "there: exists already; nothing was written"),
    ],
)
def test_a_new_plugin_that_cannot_be_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    result = compress("new-plugin", name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("kind", ["method", "criterion"])
def test_the_written_component_conforms_and_can_be_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Scaffold(f"written-{kind}", kind).write(tmp_path / kind)  # type: ignore[arg-type]  # the two words above
    monkeypatch.syspath_prepend(tmp_path / kind / "src")
    test = tmp_path / kind / "tests" / f"test_written_{kind}.py"
    members: dict[str, object] = {}
    exec(compile(test.read_text(), test, "exec"), members)  # noqa: S102 - what was written just now
    claims = [members[name] for name in members if name.startswith("test_")]
    assert len(claims) == 1
    for given in ({"kept": 0.5},) if kind == "method" else ({},):
        claims[0](**given)  # type: ignore[operator]
    registry = Registry()
    registry.register(sys.modules[f"written_{kind}"], "written")
    assert registry.names(kind) == (f"written-{kind}",)
