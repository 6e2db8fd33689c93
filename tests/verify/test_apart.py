from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import CompressorError, InputError, SetupError
from compressor.verify import apart
from compressor.verify.latency import measure
from compressor.verify.rounds import Protocol, Shape
from compressor.verify.statistics import Resampling

pytestmark = pytest.mark.usefixtures("own_processes")


def answer(request: Mapping[str, Any]) -> Any:
    """Do what the request says: this module is imported in the other process too."""
    match request:
        case {"raise": "input"}:
            raise InputError("no such file", hint="look again")
        case {"raise": "memory"}:
            raise MemoryError("can't allocate memory")
        case {"raise": "bug"}:
            raise ZeroDivisionError
        case {"raise": "interrupt"}:
            raise KeyboardInterrupt
        case {"signal": number}:
            os.kill(os.getpid(), number)
        case {"wait": True}:
            signal.pause()
    print("a library says hello")  # noqa: T201 - what libraries do
    return {"process": os.getpid(), "torch": "torch" in sys.modules, **request}


def test_answers_come_from_another_process_without_torch_whatever_is_printed_there(capfd: pytest.CaptureFixture[str]):
    found = apart.ask(__name__, {"text": "naïve"})
    assert found.pop("process") != os.getpid()
    assert found == {"torch": False, "text": "naïve"}
    assert capfd.readouterr().err == "a library says hello\n"


def test_errors_keep_their_class_and_their_hint():
    with pytest.raises(InputError, match="no such file") as caught:
        apart.ask(__name__, {"raise": "input"})
    assert caught.value.hint == "look again"
    with pytest.raises(SetupError, match="can't allocate memory"):
        apart.ask(__name__, {"raise": "memory"})


def test_a_bug_arrives_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError in the process that measures: ") as caught:
        apart.ask(__name__, {"raise": "bug"})
    assert "in answer" in caught.value.__notes__[0]


@pytest.mark.parametrize(("number", "said"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "memory may have run out")])
def test_a_process_that_dies_is_an_error_of_the_environment(number: int, said: str):
    with pytest.raises(SetupError, match=f"ended early: .*{said}"):
        apart.ask(__name__, {"signal": int(number)})


def test_an_interrupt_there_is_one_here():
    with pytest.raises(KeyboardInterrupt):
        apart.ask(__name__, {"raise": "interrupt"})


def test_patience_ends():
    with pytest.raises(CompressorError, match=r"longer than 3 s"):
        apart.ask(__name__, {"wait": True}, patience=3)


def test_latency_is_measured_there_with_the_same_rows(tiny_onnx: Callable[..., Path]):
    protocol = Protocol(rounds=3, vocabulary=64, untuned=False, resampling=Resampling(resamples=10))
    rows = measure({"dense": tiny_onnx("dense"), "model": tiny_onnx("model")}, [Shape(1, 8)], protocol=protocol)
    assert [(row.model, row.rounds, row.clock) for row in rows] == [("dense", 3, "cpu"), ("model", 3, "cpu")]
    assert all(0 < row.cpu_ms["p50"] <= row.cpu_ms["p95"] for row in rows)
    with pytest.raises(InputError, match="inputs of shape 1x8"):
        measure({"dense": tiny_onnx()}, [Shape(1, 8)], protocol=Protocol(rounds=3, vocabulary=10**6))
