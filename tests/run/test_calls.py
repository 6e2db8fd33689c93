from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import torch

from compressor.errors import CompressorError, InputError, PluginError, SetupError
from compressor.run.calls import plugin_call
from tests.plugin.toy_plugin import Magnitude

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
