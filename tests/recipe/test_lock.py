from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compressor.plugin import Registry
from compressor.recipe.document import CoreLoader, read_document
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import CoreDumper, lock_text
from compressor.recipe.plan import compile_plan
from tests.recipe.conftest import GOOD, Compile


@pytest.mark.parametrize("change", [("", ""), ("samples: 64", "tokens: 1000"), ("owner/model", "'1e-4'")])
def test_the_locked_recipe_compiles_to_the_same_digest(
    compiled: Compile, tmp_path: Path, registry: Registry, change: tuple[str, str]
):
    plan = compiled(GOOD.replace(*change), overrides=["seed=5"])
    path = tmp_path / "lock.yaml"
    path.write_text(lock_text(plan, environment={"torch": "2.13.0"}, inputs={"sha256": "ab"}))
    lock = read_document(path).data
    again = tmp_path / "again.yaml"
    again.write_text(yaml.dump(lock["recipe"], Dumper=CoreDumper))
    replan = compile_plan(load_recipe(again), registry)
    assert replan.digest == plan.digest == lock["digest"]
    assert lock["recipe"]["steps"][0]["prune"]["damping"] == 0.5
    assert lock["overrides"] == ["seed=5"]
    assert lock["providers"]["method:toy"] == "toys (tests.plugin.toy_plugin)"
    assert (lock["environment"], lock["inputs"]) == ({"torch": "2.13.0"}, {"sha256": "ab"})


@pytest.mark.parametrize(
    "value", ["2:4", "no", "1e-4", "0o17", "null", "2024-01-01", 1e-05, 1e22, 0.1, True, None, "é"]
)
def test_what_is_dumped_is_read_back_under_both_versions_of_yaml(value: object):
    text = yaml.dump({"key": value}, Dumper=CoreDumper, allow_unicode=True)
    assert yaml.compose(text, CoreLoader).value[0][1].tag == yaml.compose(text, yaml.SafeLoader).value[0][1].tag
    assert yaml.safe_load(text) == {"key": value}
