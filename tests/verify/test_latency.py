from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compressor.errors import InputError
from compressor.model import runtime
from compressor.model.runtime import SessionOptions
from compressor.verify import rounds
from compressor.verify.gates import Limits, check_gates
from compressor.verify.latency import measure
from compressor.verify.rounds import Protocol, Shape
from compressor.verify.statistics import Resampling

QUICK = Protocol(rounds=4, vocabulary=64, untuned=False, resampling=Resampling(resamples=50))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MEASUREMENT_SECONDS", 0.001)
    monkeypatch.setattr(rounds, "WARM_UP_SECONDS", 0.01)


def test_every_shape_and_model_has_a_row_and_the_first_is_its_own_baseline(tiny_onnx: Callable[..., Path]):
    table = np.zeros((64, 2), np.float32)
    paths = {"dense": tiny_onnx("dense"), "a": tiny_onnx("a", table), "b": tiny_onnx("b", table)}
    shapes = [Shape(1, 8), Shape(4, 16)]
    rows = measure(paths, shapes, threads=(1, 2), protocol=QUICK)
    assert [(row.threads, row.batch, row.sequence, row.model) for row in rows] == [
        (threads, shape.batch, shape.sequence, name) for threads in (1, 2) for shape in shapes for name in paths
    ]
    for row in rows:
        assert row.rounds == 4
        assert 0 < row.wall_ms["p50"] <= row.wall_ms["p90"]
        assert 0 < row.cpu_ms["p50"] <= row.cpu_ms["p90"]
        assert row.ratio.lower <= row.ratio.upper
        assert row.control.value > 0
        assert row.clock == ("cpu" if row.threads == 1 else "wall")
        if row.model == "dense":
            assert (row.ratio.value, row.ratio.lower, row.ratio.upper) == (1.0, 1.0, 1.0)


def test_ratios_and_percentiles_come_from_the_calls_times(
    tiny_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    """Three times the wall and half the CPU time, whatever the machine does: the clock is replaced."""
    wide = np.zeros((64, 3), np.float32)

    def clock(_session: object, _inputs: object, _calls: int) -> np.ndarray:
        is_wide = _session.get_outputs()[0].shape[1] == 3  # type: ignore[attr-defined]
        wall, cpu = (30.0, 1.0) if is_wide else (10.0, 2.0)
        return np.array([[wall, wall, 7 * wall], [cpu, cpu, cpu]]) * 1e-3

    monkeypatch.setattr(rounds, "_time", clock)
    paths = {"dense": tiny_onnx("dense"), "wide": tiny_onnx("wide", wide)}
    row = measure(paths, [Shape(1, 8)], protocol=QUICK)[1]
    assert (row.ratio.value, row.ratio.lower, row.ratio.upper) == pytest.approx((0.5, 0.5, 0.5))
    assert row.wall_ratio.value == pytest.approx(3.0)
    assert row.control.value == pytest.approx(1.0)
    assert row.wall_ms == pytest.approx({"p50": 30.0, "p90": 210.0, "p95": 210.0})
    assert row.cpu_ms == pytest.approx({"p50": 1.0, "p90": 1.0, "p95": 1.0})
    wall_row = measure(paths, [Shape(1, 8)], threads=(2,), protocol=QUICK)[1]
    assert wall_row.ratio.value == pytest.approx(3.0)


@pytest.mark.parametrize("seed", range(5))
def test_identical_files_are_alike_within_three_percent_and_no_gate_says_otherwise(
    tiny_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, seed: int
):
    """The clock is replaced: where a session lies in memory makes it up to 2 % slower, and every call up to 5 %."""
    generator = np.random.default_rng(seed)
    places: dict[object, float] = {}

    def clock(session: object, _inputs: object, calls: int) -> np.ndarray:
        place = places.setdefault(session, generator.uniform(1, 1.02))
        return place * generator.uniform(1, 1.05, (2, calls)) * 1e-3

    monkeypatch.setattr(rounds, "_time", clock)
    path = tiny_onnx("dense")
    protocol = Protocol(untuned=False, vocabulary=64, resampling=Resampling(resamples=200))
    row = measure({"dense": path, "copy": path}, [Shape(1, 8)], protocol=protocol)[1]
    assert len(places) == 15, "five loads of two models and of the control"
    assert abs(row.ratio.value - 1) < 0.03
    assert abs(row.control.value - 1) < 0.03
    assert row.ratio.lower <= row.ratio.upper
    verdicts = [check_gates(Limits(latency=limit), latency=[row])[0].verdict for limit in (0.97, 1.03)]
    assert verdicts[0] != "pass", "a file is no faster than itself"
    assert verdicts[1] != "fail", "and no slower"


def test_warm_up_goes_on_until_two_windows_agree(monkeypatch: pytest.MonkeyPatch):
    windows = iter([9.0, 5.0, 2.0, 1.05, 1.02, 77.0])
    monkeypatch.setattr(rounds, "WARM_UP_SECONDS", 60.0)
    monkeypatch.setattr(rounds, "_time", lambda *_: np.full((2, 5), next(windows)))
    assert rounds._warm_up(None, {}) == 1.02


def test_all_models_get_the_same_options_and_fresh_loads(
    tiny_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    opened: list[tuple[str, SessionOptions]] = []

    def spy(path: Path, options: SessionOptions) -> object:
        opened.append((path.stem, options))
        return runtime.open_session(path, options)

    monkeypatch.setattr(rounds, "open_session", spy)
    protocol = Protocol(rounds=3, vocabulary=64, resampling=Resampling(resamples=10))
    rows = measure({"dense": tiny_onnx("dense"), "model": tiny_onnx("model")}, [Shape(1, 8)], protocol=protocol)
    for slow_fusion in (False, True):
        options = SessionOptions(provider="cpu", threads=1, slow_fusion=slow_fusion)
        names = sorted(name for name, given in opened if given == options)
        sessions = 3 if slow_fusion else 6  # three loads; the first model has a second session (A/A)
        assert names == ["dense"] * sessions + ["model"] * 3
    assert len(opened) == 15
    assert [(row.model, row.slow_fusion) for row in rows] == [
        ("dense", False),
        ("model", False),
        ("dense", True),
        ("model", True),
    ]


def test_turns_are_shuffled_and_complete_in_every_round(
    monkeypatch: pytest.MonkeyPatch, tiny_onnx: Callable[..., Path]
):
    turns: list[int] = []
    real = rounds._time

    def spy(session: object, inputs: dict[str, np.ndarray], calls: int) -> np.ndarray:
        turns.append(id(session))
        return real(session, inputs, calls)

    sessions = {name: runtime.open_session(tiny_onnx(name)) for name in "abc"}
    monkeypatch.setattr(rounds, "_warm_up", lambda *_: 1.0)
    monkeypatch.setattr(rounds, "_time", spy)
    rounds._take_turns(sessions, np.ones((1, 4), np.int64), 12, np.random.default_rng(0))
    orders = [tuple(turns[start : start + 3]) for start in range(0, 36, 3)]
    assert all(len(set(order)) == 3 for order in orders)
    assert len(set(orders)) > 2


def test_sequences_beyond_the_models_positions_are_an_error_with_the_shape(tiny_onnx: Callable[..., Path]):
    path = tiny_onnx()
    with pytest.raises(InputError, match="inputs of shape 1x8"):
        measure({"dense": path}, [Shape(1, 8)], protocol=Protocol(rounds=3, vocabulary=10**6))


def test_an_input_that_is_no_text_is_an_error(tiny_onnx: Callable[..., Path]):
    path = tiny_onnx()
    model = onnx.load(str(path))
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", TensorProto.INT64, ["batch", "seq"]))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="needs the inputs pixels"):
        measure({"dense": path}, [Shape(1, 8)], protocol=QUICK)
