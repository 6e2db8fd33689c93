from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.errors import RecipeError
from compressor.recipe.document import parse, read_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"),
        ("1:30:00", "1:30:00"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("1e-4", 1e-4),
        ("3E5", 3e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("0b11", "0b11"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'1e-4'", "1e-4"),
        ('"null"', "null"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any):
    data = parse(f"key: {text}", "x.yaml").data
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_every_value_knows_its_line():
    document = parse("a:\n  b: [1,\n    2]\nc:\n  - d: 3\n  - e\n", "x.yaml")
    trails = {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 1): 3, ("c", 0, "d"): 5, ("c", 1): 6}
    assert {trail: document.places[trail][1] for trail in trails} == trails
    assert str(document.problem(("c", 0, "d", "deeper"), "is wrong")) == "x.yaml:5  c.0.d.deeper: is wrong"


def test_an_alias_is_a_copy():
    assert parse("a: &x {b: 1}\nc: *x", "x.yaml").data == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3  a: this key was given already in line 1"),
        ("a:\n  b: 1\n  b: 1", "x.yaml:3  a.b: this key was given already in line 2"),
        ("a: !!python/name:os.system x", "x.yaml:1  a: the YAML tag 'tag:yaml.org,2002:python/name:os.system' is not"),
        ("a: !!int x", "x.yaml:1  a: expected int, as the tag says, got 'x'"),
        ("? [1, 2]\n: 3", "x.yaml:1  expected a plain word as key"),
        ("a: &x [*x]", "x.yaml:1  a.0: an alias cannot contain itself"),
    ],
)
def test_what_is_not_plain_data_is_a_problem_with_its_line(text: str, problem: str):
    assert str(parse(text, "x.yaml").problems[0]).startswith(problem)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; expected a mapping"),
        (b"# nothing\n", "the file is empty; expected a mapping"),
        (b"a: [1, 2\n", "x.yaml:2  not valid YAML: expected ',' or ']'"),
        (
            b"a:\n\tb: 1\n",
            "x.yaml:2  not valid YAML: found character '\\t' that cannot start any token; YAML is indented",
        ),
        (b"a: b: c\n", "x.yaml:1  not valid YAML: mapping values are not allowed here"),
        (b"a: *nowhere\n", "x.yaml:1  not valid YAML: found undefined alias"),
        (b"a: 1\n---\nb: 2\n", "x.yaml:2  not valid YAML: but found another document"),
        (b"a: \x00\n", "x.yaml  not valid YAML: special characters are not allowed"),
        (b"\xff\xfe\xfa", "x.yaml  is not UTF-8 text: "),
    ],
)
def test_a_file_that_cannot_be_parsed_is_one_message(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_document(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"absent\.yaml  no such file"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        read_document(tmp_path)


def test_replacing_a_value_leaves_the_document_and_moves_its_place():
    before = parse("a: {b: 1}\nc: [{d: 2}]\ne:\n", "x.yaml")
    after = before.replaced(("c", "0", "d"), [5], ("--set c.0.d", 0)).replaced(("e", "f", "g"), 6, ("--set e.f.g", 0))
    assert before.data == {"a": {"b": 1}, "c": [{"d": 2}], "e": None}
    assert after.data == {"a": {"b": 1}, "c": [{"d": [5]}], "e": {"f": {"g": 6}}}
    assert str(after.problem(("c", 0, "d", 0), "is wrong")) == "--set c.0.d  c.0.d.0: is wrong"
    assert str(after.problem(("a", "b"), "is wrong")) == "x.yaml:1  a.b: is wrong"


@pytest.mark.parametrize(
    ("trail", "message"),
    [
        (("c", "1", "d"), "c is a list of 1: expected a position from 0 to 0, got '1'"),
        (("c", "x"), "c is a list of 1: expected a position from 0 to 0, got 'x'"),
        (("a", "b"), "a is 'glue', which has no 'b'; write it as a mapping, e.g. {name: glue, b: ...}"),
    ],
)
def test_replacing_what_is_not_there_is_an_error(trail: tuple[str, ...], message: str):
    with pytest.raises(RecipeError) as caught:
        parse("a: glue\nc: [1]", "x.yaml").replaced(trail, 1, ("--set x", 0))
    assert message in str(caught.value)
