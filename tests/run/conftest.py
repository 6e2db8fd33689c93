"""One finished toy run, shared by the tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import Lock
from compressor.recipe.plan import compile_plan
from compressor.run.pipeline import Conditions, Finished, run
from tests.toys import toy_recipe


def run_recipe(
    recipe: Path,
    out: Path,
    *,
    registry: Registry | None = None,
    announce: Callable[[str], None] = lambda _: None,
    locked: Lock | None = None,
    **options: Any,
) -> Finished:
    registry = registry or Registry.load()
    plan = compile_plan(load_recipe(recipe), registry)
    return run(plan, out, Conditions(registry, torch.device("cpu"), announce, locked), **options)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_recipe(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def finished(toy: Path) -> Finished:
    return run_recipe(toy, toy.parent / "out")
