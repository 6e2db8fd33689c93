from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compressor.errors import InputError
from compressor.plugin import Registry
from compressor.recipe.document import CoreLoader, read_document
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import CoreDumper, Row, flat, lock_text, locked_facts, read_lock
from compressor.recipe.plan import compile_plan
from tests.recipe.conftest import GOOD, Compile


@pytest.mark.parametrize("change", [("", ""), ("samples: 64", "tokens: 1000"), ("owner/model", "'1e-4'")])
def test_the_locked_recipe_compiles_to_the_same_digest(
    compiled: Compile, tmp_path: Path, registry: Registry, change: tuple[str, str]
):
    plan = compiled(GOOD.replace(*change), overrides=["seed=5"])
    path = tmp_path / "lock.yaml"
    facts = locked_facts(
        plan, environment={"python": "3.11.9"}, hardware={"device": "cpu"}, inputs={"ids": Row(range(400))}
    )
    path.write_text(lock_text(facts, outputs={"model.onnx": "cd"}))
    lock = read_document(path).data
    again = tmp_path / "again.yaml"
    again.write_text(yaml.dump(lock["recipe"], Dumper=CoreDumper))
    replan = compile_plan(load_recipe(again), registry)
    assert replan.digest == plan.digest == lock["digest"]
    assert lock["recipe"]["steps"][0]["prune"]["damping"] == 0.5
    assert lock["overrides"] == ["seed=5"]
    assert lock["providers"]["method:toy"] == "toys (tests.plugin.toy_plugin)"
    assert (lock["environment"], lock["hardware"]) == ({"python": "3.11.9"}, {"device": "cpu"})
    assert lock["inputs"] == {"ids": list(range(400))}
    assert len(path.read_text().splitlines()) < 100, "rows stand in rows"
    read = read_lock(path)
    assert (read.path, read.outputs) == (path, {"model.onnx": "cd"})
    assert read.facts == {key: value for key, value in lock.items() if key != "outputs"}


@pytest.mark.parametrize(
    "value", ["2:4", "no", "1e-4", "0o17", "null", "2024-01-01", 1e-05, 1e22, 0.1, True, None, "é"]
)
def test_what_is_dumped_is_read_back_under_both_versions_of_yaml(value: object):
    text = yaml.dump({"key": value}, Dumper=CoreDumper, allow_unicode=True)
    assert yaml.compose(text, CoreLoader).value[0][1].tag == yaml.compose(text, yaml.SafeLoader).value[0][1].tag
    assert yaml.safe_load(text) == {"key": value}


def test_a_recipe_stands_for_the_lock_file_beside_it(tmp_path: Path):
    (tmp_path / "some.yaml").write_text(GOOD)
    with pytest.raises(InputError, match=r"some\.yaml is a recipe, and \S+/some\.lock\.yaml is not there"):
        read_lock(tmp_path / "some.yaml")
    (tmp_path / "some.lock.yaml").write_text("digest: a\nrecipe: {}\noutputs: {model.onnx: b}\n")
    assert read_lock(tmp_path / "some.yaml").path == tmp_path / "some.lock.yaml"


@pytest.mark.parametrize("outputs", ["", "outputs: {}", "outputs: [model.onnx]"])
def test_a_lock_file_that_does_not_say_what_was_made_cannot_be_replayed(outputs: str, tmp_path: Path):
    (tmp_path / "old.lock.yaml").write_text(f"digest: a\nrecipe: {{}}\n{outputs}\n")
    with pytest.raises(InputError, match=r"old\.lock\.yaml: expected the sha256 of what was made under `outputs`"):
        read_lock(tmp_path / "old.lock.yaml")


def test_every_leaf_has_a_path():
    data = {"a": {"b": 1, "c": {}}, "steps": [{"prune": {"x": [1, 2]}}, "verify"], "d": None}
    assert dict(flat(data)) == {"a.b": 1, "steps.0.prune.x": [1, 2], "steps.1": "verify", "d": None}
