"""A component as the option of another: ``criterion: Choice[Criterion]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, ValidationError, core_schema

from compressor.errors import InputError
from compressor.plugin.components import Component

KIND_KEY = "x-component-kind"
"""Marks, in the JSON Schema of a component, an option that is itself a component of the named kind."""

C = TypeVar("C", bound=Component)


class ByName:
    """Reads ``taylor``, ``{name: taylor, samples: 2048}`` or a component; dumps the name and *all* options.

    A text that a component of the kind spells, such as the pattern ``4x1``, is that component with those options.

    Plain pydantic refuses the short form, drops the options that a subclass adds when it dumps (two different recipes
    would share a digest), and writes an empty schema.
    """

    def __get_pydantic_core_schema__(self, source: type[Component], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate and serialise through the registry."""

        def validate(value: Any, info: ValidationInfo) -> Component:
            return _component(source, value, info)

        return core_schema.with_info_plain_validator_function(
            validate,
            metadata={KIND_KEY: source.kind},
            serialization=core_schema.plain_serializer_function_ser_schema(named_options),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Name the kind; ``recipe/schema.py`` puts the union over what is installed in its place."""
        return {KIND_KEY: schema["metadata"][KIND_KEY]}


Choice = Annotated[C, ByName()]
"""``Choice[Criterion]`` is the type of an option that names a criterion.

The registry comes from the validation context: ``Method.model_validate(data, context={"registry": registry})``.
"""


def chosen_name(value: Any) -> str | None:
    """Return the component name that ``value`` gives in its short or long form, or None."""
    name = value.get("name") if isinstance(value, Mapping) else value
    return name if isinstance(name, str) else None


def named_options(component: Component) -> dict[str, Any]:
    """Return a component in its long form: its name and all its options."""
    return {"name": component.name, **component.options()}


def _component(contract: type[Component], value: Any, info: ValidationInfo) -> Component:
    """Look the component up and validate its options, whose errors keep their path.

    Raises:
        PluginError: the plugin that would provide it failed to load.
    """
    if isinstance(value, contract):
        return value
    name = chosen_name(value)
    if name is None:
        raise PydanticCustomError(
            "component_type", "expected the name of a {kind}, or a mapping with its name", {"kind": contract.kind}
        )
    if not info.context or "registry" not in info.context:
        raise PydanticCustomError(
            "no_registry", "expected a {kind} object: names need a registry", {"kind": contract.kind}
        )
    registry = info.context["registry"]
    options = {key: option for key, option in value.items() if key != "name"} if isinstance(value, Mapping) else {}
    short = registry.spelled(contract.kind, value) if isinstance(value, str) else None
    try:
        cls = short or registry.get(contract.kind, name)
    except InputError as error:
        unknown = PydanticCustomError("unknown_component", "{message}", {"message": error.message})
        where = ("name",) if isinstance(value, Mapping) else ()
        details = InitErrorDetails(type=unknown, loc=where, input=name)
        raise ValidationError.from_exception_data(contract.__name__, [details]) from error
    component: Component = cls.model_validate(short.spelled(value) if short else options, context=info.context)
    return component
