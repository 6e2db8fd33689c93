"""What an option expects, in words: from its JSON Schema, for errors and for help."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from compressor.errors import InputError, PluginError, did_you_mean
from compressor.plugin import Component, Registry
from compressor.plugin.choice import KIND_KEY, chosen_name, named_options
from compressor.recipe.document import Trail

Schema = Mapping[str, Any]
MISSING = object()
SHOWN = 60
OWN_WORDS = {"value_error", "assertion_error"}
GENERIC = set(get_args(ErrorType)) - OWN_WORDS
BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
WORDS = {"string": "text", "boolean": "true or false", "null": "null", "integer": "an integer", "number": "a number"}


def option_schema(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a component's options.

    Raises:
        PluginError: an option has a type that JSON Schema cannot express.
    """
    try:
        schema = cls.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}: an option has a type that YAML cannot give: {error.message}"
        ) from error
    for name, option in cls.model_fields.items():
        if isinstance(option.default, Component):  # pydantic writes such a default without its name
            schema["properties"][name]["default"] = named_options(option.default)
    return schema


def describe(schema: Schema, root: Schema) -> str:
    """Say what a schema accepts: ``a number in [0, 1)``; empty when it accepts anything.

    Args:
        schema: of one option.
        root: the schema whose ``$defs`` it refers to.
    """
    parts = [_describe_one(option, root) for option in _alternatives(schema, root) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(parts)) if all(parts) else ""


def _describe_one(schema: Schema, root: Schema) -> str:
    if KIND_KEY in schema:
        return f"a {schema[KIND_KEY]} (its name, or a mapping with its name)"
    for key in ("enum", "const"):
        if key in schema:
            values = schema[key] if key == "enum" else [schema[key]]
            return f"{'one of ' if len(values) > 1 else ''}{', '.join(shown(value) for value in values)}"
    kind = schema.get("type")
    if kind == "object":
        return f"a mapping of {', '.join(schema['properties'])}" if schema.get("properties") else "a mapping"
    if kind == "array":
        inner = describe(schema["items"], root) if schema.get("items") else ""
        return f"a list, each {inner}" if inner else "a list"
    return f"{WORDS[kind]}{_range(schema)}" if kind in WORDS else ""


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if (low is not None or above is not None) and (high is not None or below is not None):
        left = f"({above:g}" if low is None else f"[{low:g}"
        right = f"{below:g})" if high is None else f"{high:g}]"
        return f" in {left}, {right}"
    return "".join(f" {sign} {schema[key]:g}" for key, sign in BOUNDS if key in schema)


def shown(value: Any) -> str:
    """Write a value as a recipe would, shortened."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def explain(
    error: ValidationError, model: type[BaseModel], data: Any, registry: Registry | None = None
) -> list[tuple[Trail, str]]:
    """Turn pydantic's errors into sentences: where below ``data``, and what was expected and found.

    Args:
        error: what validating ``data`` as ``model`` raised.
        model: the declaration.
        data: the options as the recipe gives them.
        registry: finds the declarations of nested components.
    """
    schema = option_schema(model)
    start = _Spot(schema, schema, data)
    found: dict[Trail, str] = {}
    for details in error.errors(include_url=False):
        trail, message = _sentence(details, start, registry)
        found.setdefault(trail, message)
    # A union reports every form it might have taken, some of them further in: the shortest trail says it all.
    return [
        (trail, message) for trail, message in found.items() if not any(trail[:n] in found for n in range(len(trail)))
    ]


@dataclass(frozen=True)
class _Spot:
    """One place in the options: the schema there, the schema that holds its ``$defs``, and the value given."""

    schema: Schema
    root: Schema
    value: Any

    def inside(self, registry: Registry | None) -> Iterator[_Spot]:
        """Yield this place once for each form it may take, nested components replaced by their options."""
        for schema in _alternatives(self.schema, self.root):
            name = chosen_name(self.value)
            if KIND_KEY in schema and registry and name is not None:
                try:
                    options = option_schema(registry.get(schema[KIND_KEY], name))
                except InputError:
                    continue
                yield _Spot(
                    {**options, "properties": {"name": {}, **options.get("properties", {})}}, options, self.value
                )
            else:
                yield _Spot(schema, self.root, self.value)

    def at(self, key: str | int, registry: Registry | None) -> _Spot | None:
        """Return the place one step further in, or None where ``key`` is pydantic's name for a form of a union."""
        for spot in self.inside(registry):
            value = self.value
            if isinstance(key, int) and isinstance(value, Sequence) and not isinstance(value, str):
                fixed = spot.schema.get("prefixItems", [])
                items = fixed[key] if key < len(fixed) else spot.schema.get("items")
                if items is not None and key < len(value):
                    return _Spot(items, spot.root, value[key])
            values = spot.schema.get("properties", {}).get(key) or spot.schema.get("additionalProperties")
            if isinstance(key, str) and isinstance(values, Mapping):
                return _Spot(values, spot.root, value.get(key, MISSING) if isinstance(value, Mapping) else MISSING)
        return None

    def options(self, registry: Registry | None) -> list[str]:
        """Return the option names known here."""
        return [name for spot in self.inside(registry) for name in spot.schema.get("properties", {})]


def _sentence(details: ErrorDetails, start: _Spot, registry: Registry | None) -> tuple[Trail, str]:
    spot = start
    trail: Trail = ()
    loc: Trail = details["loc"]
    extra = details["type"] == "extra_forbidden"
    for key in loc[:-1] if extra else loc:
        step = spot.at(key, registry)
        if step is not None:
            spot, trail = step, (*trail, key)
    if extra:
        known = spot.options(registry)
        guess = did_you_mean(str(loc[-1]), known) or f"; known: {', '.join(known) or 'none'}"
        return (*trail, loc[-1]), f"unknown option '{loc[-1]}'{guess}"
    return trail, _expectation(details, spot, trail)


def _expectation(details: ErrorDetails, spot: _Spot, trail: Trail) -> str:
    if details["type"] in OWN_WORDS:
        return str(details["ctx"]["error"])
    if details["type"] not in GENERIC:
        return details["msg"]
    expected = describe(spot.schema, spot.root)
    if details["type"] == "missing":
        return f"is missing; expected {expected}" if expected else "is missing"
    if not expected:
        return f"{details['msg']}, got {shown(spot.value)}"
    # A key, and an option that was given by another name, do not stand in the recipe where pydantic says they do.
    elsewhere = spot.value is MISSING or details["loc"][-1] == "[key]"
    value = details["input"] if elsewhere else spot.value
    many = ", a list; next step: compress sweep" if isinstance(value, list) and "target" in trail else ""
    guess = did_you_mean(value, _words(spot)) if isinstance(value, str) else ""
    return f"expected {expected}, got {shown(value)}{guess}{many}"


def _words(spot: _Spot) -> list[str]:
    """Return the fixed texts that are accepted here."""
    forms = _alternatives(spot.schema, spot.root)
    values = [value for form in forms for value in form.get("enum", [form.get("const")])]
    return [value for value in values if isinstance(value, str)]


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield every form that a schema allows, references followed."""
    if "$ref" in schema:
        yield from _alternatives(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    elif "anyOf" in schema or "oneOf" in schema:
        for option in schema.get("anyOf") or schema["oneOf"]:
            yield from _alternatives(option, root)
    else:
        yield schema
