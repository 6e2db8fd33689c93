"""How patterns are written, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from compressor.model import Blocks
from compressor.plugin import Component, Registry, SparsityPattern
from compressor.plugin.choice import named_options
from compressor.recipe.document import parse
from compressor.recipe.schema import recipe_schema

REGISTRY = Registry.load()


def method(pattern: Any, **options: Any) -> Any:
    given = {"pattern": pattern, "target": {"sparsity": 0.25}, **options}
    return REGISTRY.get("method", "one_shot").model_validate(given, context={"registry": REGISTRY})


def from_yaml(text: str) -> SparsityPattern:
    pattern: SparsityPattern = method(parse(f"pattern: {text}", "x.yaml").data["pattern"]).pattern
    return pattern


@pytest.mark.parametrize(
    ("text", "label", "blocks"),
    [
        ("1x1", "1x1", Blocks(1, 1, 1)),
        ("4x1", "4x1", Blocks(4, 1, 4)),
        ("1x4", "1x4", Blocks(1, 4, 4)),
        ("8x16", "8x16", Blocks(8, 16, 128)),
        ("2:4", "2:4", Blocks(1, 4, 2)),
        ("4:8", "4:8", Blocks(1, 8, 4)),
        ("keep 1 of 4", "keep 1 of 4", Blocks(1, 4, 3)),
        ("{name: n-m, keep: 3, of: 4}", "keep 3 of 4", Blocks(1, 4, 1)),
        ("{name: block, rows: 2, columns: 2}", "2x2", Blocks(2, 2, 4)),
        ("1xchannel", "1xchannel", Blocks(1, 48, 48)),
        ("channelx1", "channelx1", Blocks(32, 1, 32)),
    ],
)
def test_a_pattern_is_plain_text_in_yaml(text: str, label: str, blocks: Blocks):
    pattern = from_yaml(text)
    assert pattern.label == label
    assert pattern.blocks((32, 48)) == blocks
    again = method(named_options(pattern)).pattern
    assert again == pattern


@pytest.mark.parametrize("text", ["1:4", "3:4", "2:8"])
def test_an_ambiguous_n_m_is_refused_and_told_how_to_be_written(text: str):
    with pytest.raises(
        ValidationError, match=r"ambiguous: NVIDIA's N:M keeps N of M, neural-compressor's removes"
    ) as caught:
        from_yaml(text)
    keep, of = text.split(":")
    assert f"write 'keep {keep} of {of}' or 'keep {int(of) - int(keep)} of {of}'" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["0x4", "4x", "2:4:2", "keep 4 of 4", "5:5", "{name: n-m, keep: 4, of: 2}", "04x1", "124"]
)
def test_what_is_no_pattern_is_refused(text: str):
    with pytest.raises(ValidationError):
        from_yaml(text)


@pytest.mark.parametrize(("text", "shape"), [("4x1", (30, 48)), ("1x4", (32, 50)), ("2:4", (32, 50))])
def test_shapes_that_do_not_divide_have_no_blocks(text: str, shape: tuple[int, int]):
    assert from_yaml(text).blocks(shape) is None


def test_rows_need_not_divide_for_runs_of_inputs():
    assert from_yaml("2:4").blocks((31, 48)) is not None


@pytest.mark.parametrize(("text", "most"), [("2:4", 0.5), ("keep 1 of 4", 0.75), ("4x1", 1.0), ("channelx1", 1.0)])
def test_a_pattern_knows_the_most_that_it_removes(text: str, most: float):
    assert from_yaml(text).most == most


def test_more_than_a_pattern_removes_is_refused():
    with pytest.raises(ValidationError, match=r"pattern 2:4 removes at most 0\.5; got sparsity 0\.9"):
        method("2:4", target={"sparsity": 0.9})


def test_the_schema_takes_what_recipes_say():
    (forms,) = [recipe_schema(REGISTRY)["$defs"]["pattern"]["anyOf"]]
    spelled = [re.compile(form["pattern"]) for form in forms if "pattern" in form]
    for text in ("2:4", "4x1", "keep 1 of 4"):
        assert any(pattern.search(text) for pattern in spelled)
    for text in ("4x1x2", "channelx2", "a 2:4"):
        assert not any(pattern.search(text) for pattern in spelled)


def test_a_component_without_spelling_spells_nothing():
    assert REGISTRY.spelled("criterion", "magnitude") is None
    with pytest.raises(NotImplementedError):
        Component.spelled("x")
