"""Which family a model has."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from compressor.errors import PluginError
from compressor.model.source import UnknownModelTypeError
from compressor.plugin import ModelFamily, PluginFailure, Provider, Registry
from compressor.run.load import failures_named, families
from tests.plugin.test_registry import yielding


class Bert(ModelFamily):
    name: ClassVar[str] = "my-bert"
    model_types: ClassVar[tuple[str, ...]] = ("nomic", "bert")

    def groups(self, model: Any) -> Any:
        return model


class Typeless(Bert):
    name: ClassVar[str] = "typeless"
    model_types: ClassVar[Any] = None


def test_two_families_of_one_model_type_are_an_error_that_names_both():
    registry = Registry.load()
    registry.register(yielding(Bert), "mine", provider=Provider("mine", "2.0", "my_families"))
    with pytest.raises(
        PluginError, match="model_type 'bert' is covered twice: by family 'bert' of compressor-onnx"
    ) as e:
        families(registry)
    assert "family 'my-bert' of mine 2.0 (my_families)" in str(e.value)


def test_a_family_that_cannot_be_asked_is_named():
    registry = Registry()
    registry.register(yielding(Typeless), "mine")
    with pytest.raises(PluginError, match=r"family 'typeless' .* failed: TypeError"):
        families(registry)


def test_an_unknown_model_type_is_a_failed_plugins_fault_only_where_there_is_one():
    registry = Registry()
    with pytest.raises(UnknownModelTypeError), failures_named(registry):
        raise UnknownModelTypeError("model_type 'x'")
    registry._failures.append(PluginFailure("xs", Provider("of-x", "1", "xs"), "ImportError: y"))
    named = r"model_type 'x'\n.*may provide it:\n  plugin 'xs' of of-x 1 \(xs\) failed"
    with pytest.raises(PluginError, match=named), failures_named(registry):
        raise UnknownModelTypeError("model_type 'x'")
