from __future__ import annotations

import json
from typing import Any

from compressor.plugin import Registry, Target
from compressor.recipe.schema import recipe_schema


def references(value: Any) -> set[str]:
    """Return every reference in a schema."""
    if isinstance(value, list):
        return {reference for item in value for reference in references(item)}
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own | {reference for item in value.values() for reference in references(item)}
    return set()


def form(schema: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Return the long form of one component."""
    forms = schema["$defs"][kind]["anyOf"][1:]
    return next(one for one in forms if one["properties"]["name"]["const"] == name)


def test_every_reference_of_the_schema_leads_somewhere(registry: Registry):
    schema = recipe_schema(registry)
    assert references(schema) <= {f"#/$defs/{name}" for name in schema["$defs"]}
    assert "x-component-kind" not in str(schema)


def test_an_option_that_is_a_component_is_the_union_over_what_is_installed(registry: Registry):
    schema = recipe_schema(registry)
    criterion = schema["$defs"]["criterion"]
    assert criterion["anyOf"][0] == {"enum": ["extent", "sailor"]}
    sailor = form(schema, "criterion", "sailor")
    assert sailor["properties"]["samples"]["minimum"] == 1
    assert {"$ref": "#/$defs/criterion"} in sailor["properties"]["inner"]["anyOf"]
    assert sailor["required"] == ["name"]
    assert sailor["additionalProperties"] is False


def test_a_step_is_one_of_the_verbs_with_its_components(registry: Registry):
    steps = recipe_schema(registry)["properties"]["steps"]["items"]["anyOf"]
    verbs = {next(iter(step["anyOf"][0]["properties"])): step for step in steps}
    assert list(verbs) == ["prune", "train", "export", "quantize", "verify"]
    short, toy = verbs["prune"]["anyOf"][0]["properties"]["prune"]["anyOf"]
    assert short == {"enum": ["toy"]}
    assert toy["properties"]["method"] == {"const": "toy"}
    assert toy["required"] == ["method", "target"]
    assert toy["properties"]["target"]["$ref"] == "#/$defs/method.toy.Target"
    assert toy["properties"]["criterion"]["default"] == {"name": "extent"}
    assert verbs["verify"]["anyOf"][1] == {"const": "verify"}


def test_a_value_of_a_target_may_be_the_list_of_a_sweep_and_no_other_option_may(registry: Registry):
    schema = recipe_schema(registry)
    values = schema["$defs"]["method.toy.Target"]["properties"]
    assert values.keys() == Target.model_fields.keys()
    for name, value in values.items():
        *one, several = value["anyOf"]
        known = [form for form in one if form != {"type": "null"}]
        assert several == {"type": "array", "items": known[0], "minItems": 1}, name
        assert value["default"] == Target.model_fields[name].default
        assert value["description"] == Target.model_fields[name].description
    assert values["macs"]["anyOf"][:2] == [{"exclusiveMinimum": 0, "maximum": 1, "type": "number"}, {"type": "null"}]
    assert values["batch"]["anyOf"][:-1] == [{"type": "integer", "minimum": 1}]
    assert "array" not in json.dumps(schema["$defs"]["verify.Gates"])


def test_a_kind_with_nothing_installed_accepts_nothing():
    assert recipe_schema(Registry())["$defs"]["task"] == {"not": {}}
