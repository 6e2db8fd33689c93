"""Fixtures of the whole suite, and the switch that turns skips into failures."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MANY = 50
"""Modules of a large library: what a test imports besides is not worth a collection."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes with two threads each would wait for one another
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails (make test-real)")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Any:
    """Collect tests without collecting garbage: of a million objects of imported libraries there is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def imported() -> set[str]:
    """Modules that the garbage collector passes by."""
    return set()


@pytest.fixture(autouse=True)
def _passed_by(imported: set[str]) -> None:
    """Let the garbage collector pass by what is imported: trainings and exports do a full collection each.

    What else is there at that time stays too, which is little: that happens a few times, as large libraries arrive.
    """
    if len(sys.modules.keys() - imported) > MANY:
        gc.collect()
        gc.freeze()
        imported.update(sys.modules)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:  # noqa: ARG001
    report: pytest.TestReport = yield
    if report.skipped and item.config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under --no-skips: {report.longrepr}"
    return report


class Real(NamedTuple):
    """What a run does and tests do in a faster way, unless they ask for it."""

    ask: Callable[..., Any]
    trace: Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """Keep the logs of errors and the latency tables out of the developer's home, and measurements and exports short.

    No test asserts a timing, and a run would warm up every session for half a second on a busy machine, in processes of
    their own. What takes seconds to import is imported here: the process that hands tests out to others needs none of it.
    """
    from compressor.plugin import registry
    from compressor.verify import apart
    from compressor_plugins.exporters import _torch_onnx
    from tests.lookup import answer_here, remembering

    found = Real(apart.ask, _torch_onnx._graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compressor.verify.rounds.MEASUREMENT_SECONDS", 0.001)
        patch.setattr("compressor.verify.rounds.WARM_UP_SECONDS", 0.01)
        patch.setattr("compressor.run.verification.measure_memory", lambda *_: {})  # a process per file
        patch.setattr(apart, "ask", answer_here)
        patch.setattr(_torch_onnx, "_graph", remembering(found.trace))
        patch.setattr(registry, "_complete", cache(registry._complete))  # the same classes, in many registries
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield found


@pytest.fixture
def own_processes(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in fresh processes, as a run does."""
    monkeypatch.setattr("compressor.verify.apart.ask", real.ask)


@pytest.fixture
def own_graphs(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every model traced by torch's exporter, also one like an earlier one."""
    monkeypatch.setattr("compressor_plugins.exporters._torch_onnx._graph", real.trace)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Directory with real models and data."""
    place = os.environ.get("COMPRESSOR_SHARED")
    if not place:
        pytest.skip("COMPRESSOR_SHARED is not set: no real models and data at hand (make test-real)")
    return Path(place).resolve()
