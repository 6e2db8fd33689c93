"""The plugin tutorial says what works: its code conforms, its recipe compiles, its table names every assertion."""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path
from typing import Any

import yaml

from compressor import testing
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.testing import assert_criterion_conforms
from tests.test_docs import blocks
from tests.test_house import ROOT

PAGE = (ROOT / "docs" / "plugins.md").read_text()


def tutorial_plugin() -> Any:
    """Run the criterion of the tutorial."""
    (source,) = [block for block in blocks(PAGE, "python") if "class TemperedSnip" in block]
    plugin = types.ModuleType("tempered_snip")
    exec(compile(source, "plugins.md", "exec", dont_inherit=True), plugin.__dict__)  # noqa: S102 - our own document
    return plugin


def test_the_criterion_of_the_tutorial_conforms():
    assert_criterion_conforms(tutorial_plugin().TemperedSnip())


def test_the_run_that_the_contracts_show_conforms():
    (source,) = [block for block in blocks(PAGE, "python") if "class SquaredWandaRun" in block]
    head = "from typing import ClassVar\nfrom compressor.plugin import Criterion, CriterionRun\n"
    plugin = types.ModuleType("squared_wanda")
    exec(compile(head + source, "plugins.md", "exec", dont_inherit=True), plugin.__dict__)  # noqa: S102 - our own document
    assert_criterion_conforms(plugin.SquaredWanda())


def test_the_toys_and_the_recipe_of_the_tutorial_fit_each_other(tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    (toys,) = [block for block in blocks(PAGE, "python") if "tiny_checkpoint" in block]
    exec(compile(toys, "plugins.md", "exec", dont_inherit=True), {})  # noqa: S102 - our own document
    (recipe,) = blocks(PAGE, "yaml")
    Path("recipe.yaml").write_text(recipe)
    assert Path(yaml.safe_load(recipe)["model"], "config.json").is_file()
    registry = Registry.load()
    registry.register(tutorial_plugin(), "tempered-snip")
    plan = compile_plan(load_recipe("recipe.yaml"), registry)
    assert "tempered-snip(power=0.25)" in repr(plan.steps[0])


def test_the_hook_of_the_page_can_be_registered():
    (source,) = [block for block in blocks(PAGE, "python") if "def compressor_run_step" in block]
    plugin = types.ModuleType("timing")
    exec(compile(source, "plugins.md", "exec", dont_inherit=True), plugin.__dict__)  # noqa: S102 - our own document
    registry = Registry()
    registry.register(plugin, "timing")
    assert registry.hook.compressor_run_step.get_hookimpls()


def test_every_assertion_of_the_kit_is_in_the_table_with_its_parameters():
    for name in testing.__all__:
        if name.endswith("_conforms"):
            found = re.search(rf"`{name}\((\w+)(, model_type)?\)`", PAGE)
            assert found, name
            assert found[1] in inspect.signature(getattr(testing, name)).parameters


def test_every_contract_has_an_assertion():
    kinds = {one.kind for one in Registry.load().components()}
    assert {f"assert_{kind}_conforms" for kind in kinds} <= set(testing.__all__)
