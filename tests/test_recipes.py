"""Every shipped recipe says what it shows, and compiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.plugin import PruningMethod, Registry, SparsityPattern
from compressor.plugin.component import nested
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from tests.test_house import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"quickstart", "minilm_mrpc_fisher", "minilm_sst2_fisher"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_compiles_and_raises_no_lint_but_of_zeros_and_of_layers_chosen_by_validation(
    path: Path, tmp_path: Path
):
    plan = compile_plan(load_recipe(path, model=str(tmp_path)), Registry.load())
    patterns = [one for step in plan.steps for one in nested(step.component) if isinstance(one, SparsityPattern)]
    methods = [step.component for step in plan.steps if isinstance(step.component, PruningMethod)]
    unpatterned = [method for method in methods if method.zeroes and not patterns]
    bounded = [step for step in plan.steps if getattr(step.component, "max_drop", None) is not None]
    assert len(plan.lints) == len(patterns) + len(unpatterned) + len(bounded)
    said = (
        "chooses layers by validation rows",
        "as zeros",
        "measured on its CPU provider: 1.00x",
        "gets no faster and no smaller",
    )
    assert all(any(text in lint for text in said) for lint in plan.lints)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_header_says_what_is_shown_how_to_run_it_and_what_was_measured(path: Path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert "Shows:" in text
    assert "Run:" in text
    assert "Measured" in text or "not run here" in text
