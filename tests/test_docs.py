"""The documents say what is true: examples run, every verb, option and plugin is mentioned."""

from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path

import pytest

from compressor.cli.recipes import plan_text
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from tests.run.conftest import run_recipe
from tests.test_house import ROOT
from tests.toys import toy_recipe

README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def plugin_block() -> str:
    (block,) = [block for block in blocks(README, "python") if "@hookimpl" in block]
    return block


def test_the_plugin_of_the_readme_is_twenty_lines_and_runs(tmp_path: Path):
    assert len([line for line in plugin_block().splitlines() if line.strip()]) <= 20
    plugin = types.ModuleType("readme_plugin")
    exec(compile(plugin_block(), "README.md", "exec", dont_inherit=True), plugin.__dict__)  # noqa: S102 - our own document
    registry = Registry.load()
    registry.register(plugin, "readme")
    steps = [{"prune": {"method": "weight-norm", "target": {"macs": 0.6}}}]
    result = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out", registry=registry)
    macs = result.report["model"]["encoder_macs"]
    assert 0 < macs["compressed"] <= 0.6 * macs["dense"]


def test_the_recipe_of_the_readme_is_the_shipped_one_and_its_plan_is_shown():
    (recipe,) = blocks(README, "yaml")
    shipped = (ROOT / "recipes" / "minilm_mrpc_fisher.yaml").read_text()
    assert recipe.strip() in shipped
    plan = compile_plan(load_recipe(ROOT / "recipes/minilm_mrpc_fisher.yaml"), Registry.load())
    assert [line for line in plan_text(plan).splitlines()[1:-1] if line not in README] == []


def test_the_reference_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reference() == REFERENCE, "run python docs/make_reference.py"


SOURCE = re.compile(r"\b(19|20)\d\d\b|https?://|arXiv|neural-compressor|[Oo]ur own")
PLAIN = {"magnitude", "gradient", "one_shot", "hidden", "task"}
"""What no paper is needed for."""


def test_every_method_criterion_and_loss_says_where_it_comes_from():
    asked = [
        one
        for one in Registry.load().components()
        if one.kind in {"method", "criterion", "loss"} and one.name not in PLAIN
    ]
    assert [f"{one.kind} {one.name}" for one in asked if not SOURCE.search(one.cls.__doc__ or "")] == []


def test_both_hooks_are_documented():
    for hook in ("compressor_components", "compressor_run_step"):
        assert hook in (ROOT / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_readme_shows_every_make_target_it_names():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README, flags=re.MULTILINE)
    assert {first or second for first, second in named} <= set(targets)
