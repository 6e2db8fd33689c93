"""The JSON Schema of a recipe, for editors: the union over every component that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.plugin import Component, Registry
from compressor.plugin.choice import KIND_KEY
from compressor.recipe.expect import option_schema
from compressor.recipe.loader import RecipeKeys
from compressor.recipe.verbs import VERBS, Verb

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NOTHING: dict[str, Any] = {"not": {}}
"""Accepts nothing: no component of this kind is installed."""


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema of a recipe.

    Every kind is one definition: a component's name, or a mapping with its name and options. Give it to an editor as
    the schema of ``recipes/*.yaml``. A value of a step's target may be a list: ``compress sweep`` takes one, and
    ``compress check`` says so of a recipe that has it.
    """
    definitions: dict[str, Any] = {}
    keys = _hoisted(option_schema(RecipeKeys), "recipe", definitions)
    kinds = {component.kind for component in registry.components()} | {"task"}
    for kind in sorted(kinds):
        definitions[kind] = _any_of(registry, kind, "name", definitions)
    steps = [_step(registry, name, verb, definitions) for name, verb in VERBS.items()]
    keys["properties"]["task"] = {"$ref": "#/$defs/task"}
    keys["properties"]["steps"]["items"] = {"anyOf": steps}
    used = _references({**keys, "$defs": definitions})
    for kind in sorted(used - definitions.keys()):
        definitions[kind] = NOTHING
    return {"$schema": DIALECT, **keys, "title": "Recipe", "$defs": definitions}


def _step(registry: Registry, name: str, verb: Verb, definitions: dict[str, Any]) -> dict[str, Any]:
    if verb.component is not None:
        options = _hoisted(option_schema(verb.component), name, definitions)
        bare = [{"const": name}]
    else:
        options = _any_of(registry, verb.kind, verb.key, definitions, default=verb.default)
        _let_targets_hold_lists(options, definitions)
        bare = [{"const": name}] if verb.default else []
    mapping = {"type": "object", "properties": {name: options}, "required": [name], "additionalProperties": False}
    return {"anyOf": [mapping, *bare]}


def _let_targets_hold_lists(options: Mapping[str, Any], definitions: dict[str, Any]) -> None:
    """Let every value of a component's target be a list of such values as well."""
    forms = [form.get("properties", {}) for form in options.get("anyOf", ())]
    for name in _references([form["target"] for form in forms if "target" in form]):
        values = definitions[name].get("properties", {})
        definitions[name] = {**definitions[name], "properties": {key: _or_list(value) for key, value in values.items()}}


def _or_list(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an option's value or of several; none of several is null."""
    said = {key: value[key] for key in ("title", "description", "default") if key in value}
    forms = value.get("anyOf") or [{key: item for key, item in value.items() if key not in said}]
    known = [form for form in forms if form != {"type": "null"}]
    items = known[0] if len(known) == 1 else {"anyOf": known}
    return {"anyOf": [*forms, {"type": "array", "items": items, "minItems": 1}], **said}


def _any_of(
    registry: Registry, kind: str, key: str, definitions: dict[str, Any], *, default: str | None = None
) -> dict[str, Any]:
    """Return the schema of "one component of this kind", named by ``key``."""
    names = registry.names(kind)
    if not names:
        return NOTHING
    classes = [registry.get(kind, name) for name in names]
    forms = [_named(cls, key, definitions, required=cls.name != default) for cls in classes]
    spelled = [{"type": "string", "pattern": f"^(?:{cls.spelling})$"} for cls in classes if cls.spelling]
    return {"anyOf": [{"enum": list(names)}, *spelled, *forms]}


def _named(cls: type[Component], key: str, definitions: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """Return the schema of one component's options together with its name."""
    options = _hoisted(option_schema(cls), f"{cls.kind}.{cls.name}", definitions)
    options["properties"] = {key: {"const": cls.name}, **options.get("properties", {})}
    options["required"] = [*([key] if required else []), *options.get("required", [])]
    return options


def _hoisted(schema: Mapping[str, Any], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Move a schema's ``$defs`` into the shared ones, under ``prefix``, and point nested components at their kind."""

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if KIND_KEY in value:
            rest = {key: item for key, item in value.items() if key != KIND_KEY}
            return {"$ref": f"#/$defs/{value[KIND_KEY]}", **rest}
        return {
            key: item.replace("#/$defs/", f"#/$defs/{prefix}.") if key == "$ref" else moved(item)
            for key, item in value.items()
        }

    for name, definition in schema.get("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = moved(definition)
    result: dict[str, Any] = moved({key: value for key, value in schema.items() if key != "$defs"})
    return result


def _references(value: Any) -> set[str]:
    """Return the names of every definition that is referred to."""
    if isinstance(value, list):
        return set().union(*(_references(item) for item in value))
    if not isinstance(value, Mapping):
        return set()
    here = {value["$ref"].rsplit("/", 1)[-1]} if isinstance(value.get("$ref"), str) else set()
    return here.union(*(_references(item) for item in value.values()))
