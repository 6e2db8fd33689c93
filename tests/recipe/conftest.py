from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import Plan, compile_plan
from tests.plugin import toy_plugin

Compile = Callable[..., Plan]

GOOD = """\
name: toy
model: owner/model
task: {name: toy-task, max_length: 16}
calibration: {samples: 64}
seed: 3
steps:
  - prune:
      method: toy
      target: {macs: 0.5}
      criterion: {name: sailor, samples: 7}
  - export: {format: toy-format}
  - verify: {batch: [1, 8], gates: {latency: 0.8}}
"""


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(toy_plugin, "toys")
    return registry


@pytest.fixture
def compiled(tmp_path: Path, registry: Registry) -> Compile:
    """Compile recipe text against the toys."""

    def compile_text(text: str = GOOD, **options: Any) -> Plan:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return compile_plan(load_recipe(path, **options), registry)

    return compile_text
