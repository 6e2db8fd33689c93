from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from compressor.errors import PluginError
from compressor.plugin import PluginFailure, Provider, Registry, Target
from tests.plugin import toy_plugin
from tests.plugin.toy_plugin import Magnitude, Taylor, ToyMethod

TARGET = {"macs": 0.5}


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(toy_plugin, "toys")
    return registry


def method(registry: Registry, **options: Any) -> ToyMethod:
    """Validate a toy method as a recipe would."""
    return ToyMethod.model_validate({"target": TARGET, **options}, context={"registry": registry})


def mistakes(registry: Registry, **options: Any) -> list[tuple[Any, str]]:
    """Return location and message of every error."""
    with pytest.raises(ValidationError) as caught:
        method(registry, **options)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


def test_short_long_and_object_form_mean_the_same(registry: Registry):
    forms = ["sailor", {"name": "sailor"}, {"name": "sailor", "samples": 1024}, Taylor()]
    assert [method(registry, criterion=form).criterion for form in forms] == [Taylor()] * 4
    assert method(registry).criterion == Magnitude()


def test_options_hold_every_option_of_a_nested_component_and_validate_back(registry: Registry):
    nested = {"name": "sailor", "samples": 7, "inner": {"name": "sailor", "inner": "extent"}}
    made = method(registry, criterion=nested, extras=["extent", {"name": "sailor", "samples": 3}])
    options = made.options()
    assert options["criterion"]["inner"] == {"name": "sailor", "samples": 1024, "inner": {"name": "extent"}}
    assert [extra["name"] for extra in options["extras"]] == ["extent", "sailor"]
    assert ToyMethod.model_validate(options, context={"registry": registry}) == made


def test_a_nested_error_keeps_its_path(registry: Registry):
    nested = {"name": "sailor", "inner": {"name": "sailor", "samples": 0}}
    assert mistakes(registry, criterion=nested)[0][0] == ("criterion", "inner", "samples")
    assert mistakes(registry, extras=["extent", {"name": "sailor", "x": 1}])[0][0] == ("extras", 1, "x")


def test_an_unknown_name_is_reported_where_it_stands_with_the_nearest_known(registry: Registry):
    message = "unknown criterion 'sailer'; did you mean 'sailor'?"
    assert mistakes(registry, criterion="sailer") == [(("criterion",), message)]
    assert mistakes(registry, criterion={"name": "sailer"}) == [(("criterion", "name"), message)]


def test_what_names_no_component_is_refused(registry: Registry):
    message = "expected the name of a criterion, or a mapping with its name"
    for value in (3, {"samples": 3}, ["sailor"], None):
        assert mistakes(registry, criterion=value) == [(("criterion",), message)]


def test_a_name_without_a_registry_is_refused_and_an_object_is_not():
    with pytest.raises(ValidationError, match="names need a registry"):
        ToyMethod.model_validate({"target": TARGET, "criterion": "sailor"})
    assert ToyMethod(target=Target(macs=0.5), criterion=Taylor()).criterion == Taylor()


def test_a_component_of_another_kind_is_refused(registry: Registry):
    other = method(registry)
    assert mistakes(registry, criterion=other)[0][0] == ("criterion",)
    assert mistakes(registry, criterion="toy")[0][1].startswith("unknown criterion 'toy'")


def test_a_needed_plugin_that_failed_is_not_a_mistake_of_the_recipe(registry: Registry):
    registry._failures.append(PluginFailure("snip", Provider("x", "1", "snip"), "ImportError: y"))
    with pytest.raises(PluginError, match="criterion 'snip' is not available"):
        method(registry, criterion="snip")


def test_repr_is_the_call_with_what_was_set(registry: Registry):
    made = method(registry, criterion={"name": "sailor", "samples": 7}, tuning="none")
    assert repr(made) == str(made) == "toy(target=Target(macs=0.5), criterion=sailor(samples=7), tuning='none')"


def test_repr_writes_a_path_as_text():
    class Filed(Magnitude):
        file: Path

    assert repr(Filed(file=Path("data/x.csv"))) == "extent(file='data/x.csv')"


def test_the_schema_of_a_choice_names_its_kind():
    properties = ToyMethod.model_json_schema()["properties"]
    assert properties["criterion"]["x-component-kind"] == "criterion"
    assert properties["extras"]["items"] == {"x-component-kind": "criterion"}
