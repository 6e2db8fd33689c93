from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from compressor.errors import InputError, PluginError
from compressor.plugin import Component, Registry, hookimpl
from tests.plugin import toy_plugin
from tests.plugin.distributions import TOYS, install

CRITERION = """
from compressor.plugin import hookimpl
from tests.plugin.toy_plugin import Magnitude

class Mine(Magnitude):
    name = "{name}"

@hookimpl
def compressor_components():
    yield Mine
"""


def points(directory: Path) -> list[EntryPoint]:
    """Return the entry points of the distributions in one directory."""
    found = distributions(path=[str(directory)])
    return sorted((point for one in found for point in one.entry_points), key=lambda point: point.name)


def plugin(**members: Any) -> ModuleType:
    """Return a module with the given members."""
    module = ModuleType("made_up")
    vars(module).update(members)
    return module


def yielding(*classes: Any) -> ModuleType:
    """Return a plugin module that yields the given components."""

    @hookimpl
    def compressor_components() -> Any:
        yield from classes

    return plugin(compressor_components=compressor_components)


def test_components_are_found_through_entry_points_with_their_provider(tmp_path: Path):
    install(tmp_path, "toy-distribution", TOYS, version="2.5")
    registry = Registry.load(points(tmp_path))
    assert registry.get("method", "toy") is toy_plugin.ToyMethod
    assert registry.names("criterion") == ("extent", "sailor")
    assert str(registry.provider("method", "toy")) == "toy-distribution 2.5 (tests.plugin.toy_plugin)"
    assert {kind for kind, *_ in registry.components()} == {"criterion", "exporter", "method", "task"}


def test_metadata_is_not_parsed_for_every_plugin_of_a_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "many", {f"absent{number}": f"absent{number}" for number in range(5)}, version="1.5")
    found, parsed, metadata = points(tmp_path), [], vars(Distribution)["metadata"]
    monkeypatch.setattr(Distribution, "metadata", property(lambda one: parsed.append(one) or metadata.fget(one)))
    failures = Registry.load(found).failures
    assert [str(failure.provider) for failure in failures] == [f"many 1.5 (absent{number})" for number in range(5)]
    assert len(parsed) == 2  # for the name, and for the version


def test_two_providers_of_one_name_are_an_error_that_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "first", TOYS, version="1.1")
    install(tmp_path, "second", {"x": "double"}, version="3.0", modules={"double": CRITERION.format(name="sailor")})
    with pytest.raises(PluginError, match=r"criterion 'sailor' is provided twice") as caught:
        Registry.load(points(tmp_path))
    assert "first 1.1 (tests.plugin.toy_plugin)" in str(caught.value)
    assert "second 3.0 (double)" in str(caught.value)
    (failure,) = (shown := Registry.load(points(tmp_path), strict=False)).failures
    assert failure.error == caught.value.message
    assert shown.get("criterion", "sailor") is toy_plugin.Taylor


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("broken_import", "import a_module_that_is_not_there", "ModuleNotFoundError: No module named"),
        ("broken_code", "1 / 0", "ZeroDivisionError: division by zero"),
        ("broken_yield", CRITERION.format(name="fine") + "    raise OSError('no disk')", "OSError: no disk"),
        (
            "broken_hook",
            "from compressor.plugin import hookimpl\n@hookimpl\ndef compressor_componentz(): return []",
            "unknown hook 'compressor_componentz'",
        ),
        (
            "broken_arguments",
            "from compressor.plugin import hookimpl\n@hookimpl\ndef compressor_run_step(stepp): return None",
            "stepp",
        ),
    ],
)
def test_a_plugin_that_fails_is_named_and_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, reason: str
):
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "unlucky", {"bad": module}, version="0.3", modules={module: source})
    install(tmp_path, "zz-toys", TOYS)
    registry = Registry.load(points(tmp_path))
    (failure,) = registry.failures
    assert (failure.entry_point, failure.provider.distribution, failure.provider.version) == ("bad", "unlucky", "0.3")
    assert reason in failure.error
    assert registry.names("method") == ("toy",)
    assert registry.hook.compressor_run_step(step=None, session=None) is None


def test_a_failed_plugin_is_to_blame_only_for_what_may_be_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "unlucky", {"obs": "broken_obs", **TOYS}, modules={"broken_obs": "import nothing_like_it"})
    registry = Registry.load(points(tmp_path))
    with pytest.raises(PluginError, match=r"method 'obs' is not available: plugin 'obs' of unlucky 1.0") as needed:
        registry.get("method", "obs")
    assert needed.value.exit_code == 4
    with pytest.raises(InputError, match="failed to load may provide it: 'obs'"):
        registry.get("method", "gradual")
    with pytest.raises(InputError, match=r"^unknown criterion 'sailer'; did you mean 'sailor'\?$"):
        registry.get("criterion", "sailer")


class Nameless(toy_plugin.Magnitude):
    name: ClassVar[str] = ""


class Abstract(toy_plugin.Criterion):
    name: ClassVar[str] = "abstract"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict, "expected a subclass of compressor.plugin.Component"),
        (toy_plugin.Magnitude(), "expected a subclass of compressor.plugin.Component"),
        (Nameless, "without `name: ClassVar"),
        (Component, "without `kind: ClassVar"),
        (Abstract, "criterion 'abstract' without its behaviour: start"),
    ],
)
def test_what_is_no_component_is_refused_with_its_provider(given: Any, message: str):
    with pytest.raises(PluginError, match=message) as caught:
        Registry().register(yielding(given), "stranger")
    assert "stranger (made_up)" in str(caught.value)


BAD = """
import abc
from compressor.plugin import hookimpl
from tests.plugin.toy_plugin import Criterion, Magnitude

class Fine(Magnitude):
    name = "fine"

class Abstract(Criterion):
    name = "abstract"

@hookimpl
def compressor_components():
    yield Fine
    yield {given}

@hookimpl
def compressor_run_step(step):
    return "ran"
"""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("Abstract", "it provides criterion 'abstract' without its behaviour: start"),
        ("dict", "it provides <class 'dict'>; expected a subclass of compressor.plugin.Component"),
        ("Criterion", "it provides Criterion without `name: ClassVar[str]`; got None"),
        ("Fine", "it provides criterion 'fine' 2 times"),
    ],
)
def test_one_bad_component_fails_its_plugin_whole_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, reason: str
):
    module = f"bad_{given}".lower()
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "unlucky", {"bad": module}, modules={module: BAD.format(given=given)})
    install(tmp_path, "zz-toys", TOYS)
    registry = Registry.load(points(tmp_path))
    assert [failure.error for failure in registry.failures] == [reason]
    assert registry.names("criterion") == ("extent", "sailor")
    assert registry.hook.compressor_run_step(step=None, session=None) is None


def test_a_module_that_exits_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "unlucky", {"bad": "exiting"}, modules={"exiting": "raise SystemExit(3)"})
    assert [failure.error for failure in Registry.load(points(tmp_path)).failures] == ["SystemExit: 3"]


def test_a_registered_hook_answers_and_wrappers_see_its_answer():
    seen = []

    @hookimpl(trylast=True, specname="compressor_run_step")
    def core(step: Any) -> str:
        return f"ran {step}"

    @hookimpl(wrapper=True, specname="compressor_run_step")
    def timing(step: Any) -> Any:
        answer = yield
        seen.append((step, answer))
        return answer

    registry = Registry()
    registry.register(plugin(core=core), "core")
    registry.register(plugin(timing=timing), "timing")
    assert registry.hook.compressor_run_step(step=1, session=None) == "ran 1"
    assert seen == [(1, "ran 1")]


def test_registering_a_misspelt_hook_or_the_same_plugin_twice_is_an_error():
    @hookimpl
    def compressor_run_stepp(step: Any) -> None: ...

    registry = Registry()
    with pytest.raises(PluginError, match="compressor_run_stepp"):
        registry.register(plugin(compressor_run_stepp=compressor_run_stepp), "misspelt")
    registry.register(toy_plugin, "toys")
    with pytest.raises(PluginError, match="registered already"):
        registry.register(toy_plugin, "again")
    assert registry.names("method") == ("toy",)


def test_first_party_plugins_come_through_their_entry_points():
    registry = Registry.load()
    assert registry.failures == ()
    expected = {
        ("method", "fisher"),
        ("family", "bert"),
        ("family", "distilbert"),
        ("task", "glue"),
        ("task", "text-classification"),
        ("task", "embedding"),
        ("exporter", "onnx"),
    }
    assert expected <= {(kind, name) for kind, name, *_ in registry.components()}
    assert {provider.distribution for *_, provider in registry.components()} >= {"compressor-onnx"}


def test_loading_every_plugin_leaves_torch_out():
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets'}"
    code = (
        "import sys; from compressor.plugin import Registry; registry = Registry.load(); "
        f"assert list(registry.components()); found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


UNDEFINED = """
from __future__ import annotations
from typing import TYPE_CHECKING
from compressor.plugin import hookimpl
from tests.plugin.toy_plugin import Magnitude

if TYPE_CHECKING:
    from decimal import Decimal

class Unfinished(Magnitude):
    name = "unfinished"
    amount: Decimal

@hookimpl
def compressor_components():
    yield Unfinished
"""


def test_a_plugin_whose_option_types_are_not_there_at_run_time_failed_to_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, "unlucky", {"unfinished": "unfinished"}, modules={"unfinished": UNDEFINED})
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load(points(tmp_path))
    (failure,) = registry.failures
    assert failure.error.endswith("name 'Decimal' is not defined; import the types of options outside TYPE_CHECKING")
    with pytest.raises(PluginError, match="criterion 'unfinished' is not available"):
        registry.get("criterion", "unfinished")
