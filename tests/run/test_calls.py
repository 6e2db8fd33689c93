from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from compressor.errors import CompressorError, InputError, PluginError, SetupError
from compressor.model.imprint import Imprint
from compressor.plugin import Pruned, PruningMethod, Registry
from compressor.plugin.registry import Provider
from compressor.recipe.plan import Step
from compressor.run.calls import plugin_call
from compressor.run.preflight import check_method
from compressor.testing import tiny_session
from tests import lookup
from tests.plugin.toy_plugin import Magnitude
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

NAME = r"step 01-prune: criterion 'extent' \(tests.plugin.toy_plugin\)"


def allocate_too_much() -> None:
    torch.empty(2**55, dtype=torch.uint8)


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fill_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("run_out", [allocate_too_much, fill_the_disk, fill_the_gpu])
def test_memory_or_disk_that_ran_out_is_not_the_plugins_fault(run_out: Callable[[], None]):
    with pytest.raises((OSError, RuntimeError)) as caught, plugin_call(Magnitude(), "step 01-prune"):
        run_out()
    assert not isinstance(caught.value, PluginError)


@pytest.mark.parametrize("error", [InputError("of the user"), SetupError("of the machine")])
def test_an_error_that_blames_someone_else_passes(error: CompressorError):
    with pytest.raises(CompressorError) as caught, plugin_call(Magnitude(), "step 01-prune"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("component", [Magnitude(), Magnitude])
def test_anything_else_becomes_the_plugins_error_and_keeps_its_cause(component: Magnitude | type[Magnitude]):
    failed = pytest.raises(PluginError, match=f"^{NAME} failed: ZeroDivisionError: x")
    with failed as bug, plugin_call(component, "step 01-prune"):
        raise ZeroDivisionError("x")
    assert isinstance(bug.value.__cause__, ZeroDivisionError)
    failed = pytest.raises(PluginError, match=f"^{NAME}: not finite")
    with failed as ours, plugin_call(component, "step 01-prune"):
        raise CompressorError("not finite", hint="more rows")
    assert ours.value.hint == "more rows"


class Asked(PruningMethod):
    """Notes what it is asked before a run."""

    name = "asked"
    label: str
    texts: bool = False
    notes: ClassVar[list[str]] = []

    @property
    def reads_texts(self) -> bool:
        return self.texts

    def check(self, model: Any) -> None:
        assert isinstance(model, torch.nn.Module)
        self.notes.append(f"{self.label} model")

    def check_texts(self, session: Any, *, first: bool) -> None:
        assert session.tokenizer
        self.notes.append(f"{self.label} texts{' first' if first else ''}")

    def prune(self, session: Any) -> Pruned:
        raise NotImplementedError(session)


def test_the_first_method_is_asked_of_the_model_and_each_that_reads_texts_of_those():
    methods = [Asked(label="a"), Asked(label="b", texts=True), Asked(label="c"), Asked(label="d", texts=True)]
    for order, expected in (
        (methods, ["a model", "b texts first", "d texts"]),
        (methods[::-1], ["d model", "d texts first", "b texts"]),
    ):
        Asked.notes.clear()
        session = tiny_session()
        plan: Any = SimpleNamespace(steps=[Step(*one) for one in zip(range(4), ["prune"] * 4, order, strict=True)])
        check_method(plan, session)
        assert Asked.notes == expected


def test_weights_are_hashed_before_and_after_a_step_and_not_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One model in the check and in the step `prune`, two in the step `export`, which writes both."""
    lookup.hurry(monkeypatch)
    registry = Registry.load()
    registry.register(lookup, "lookup", provider=Provider("lookup-exporter", "1.0", "tests.lookup"))
    hashed: list[torch.nn.Module] = []
    look = Imprint.of.__func__  # type: ignore[attr-defined]  # of the class method
    monkeypatch.setattr(Imprint, "of", classmethod(lambda cls, model: (hashed.append(model), look(cls, model))[1]))
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": "lookup"}]
    run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out", registry=registry)
    dense = hashed[0]
    assert [model is dense for model in hashed] == [True] * 4 + [False, True] * 2
