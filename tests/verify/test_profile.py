"""With the clock replaced: what comes out is what went in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import CompressorError, InputError
from compressor.model.latency_table import LatencyTable, Workload
from compressor.plugin import Registry
from compressor.run.load import families
from compressor.testing import tiny_model
from compressor.verify import profile as module
from compressor.verify.profile import profile
from compressor.verify.rounds import CONTROL, Protocol, Shape, Timings
from compressor.verify.statistics import Resampling
from compressor.verify.variants import Left, Points, Subject

PROTOCOL = Protocol(rounds=6, untuned=False, resampling=Resampling(resamples=30))
Cost = Callable[[Left], float]


def subject() -> Subject:
    return Subject(tiny_model(), families(Registry.load())["bert"], lambda _model, _path: None)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LatencyTable]:
    """Return a function that profiles a model of 3 layers, 4 heads, 48 neurons whose latency is given as a function."""

    def run(cost: Cost, *, noise: float = 0.0, workload: Workload | None = None) -> LatencyTable:
        draw = np.random.default_rng(0)

        def write(_: Subject, points: Points, place: Path) -> dict[Left, Path]:
            series = [left for lefts in points.series for left in lefts.values()]
            every = dict.fromkeys([points.empty, points.unlike, *series])
            return {left: place / f"{left}.onnx" for left in every}

        def interleave(files: Mapping[str, Path], shapes: list[Shape], **_: Any) -> dict[Shape, Timings]:
            def times(name: str) -> np.ndarray:
                left: Left = eval(files[name].stem)  # noqa: S307 - written above
                cpu = 1e-3 * cost(left) * (1 + noise * draw.normal(size=3))
                return np.stack([7 * cpu, cpu])

            return {shapes[0]: Timings([{name: times(name) for name in files} for _ in range(6)], np.arange(6) // 2)}

        monkeypatch.setattr(module, "write_files", write)
        monkeypatch.setattr(module, "interleave", interleave)
        return profile(subject(), workload or Workload(batch=1, sequence=16), PROTOCOL)

    return run


def additive(left: Left) -> float:
    return 2.0 + sum(0.3 * (count > 0) + 0.1 * count for count in left[0]) + sum(0.01 * count for count in left[1])


def test_costs_that_add_up_are_found_and_predicted(measured: Callable[..., LatencyTable]):
    table = measured(additive)
    assert table.heads.counts == (0, 1, 2, 3, 4)
    assert table.heads.milliseconds == pytest.approx((0.0, 0.4, 0.5, 0.6, 0.7))
    assert table.ffn_neurons.counts == (0, 16, 32, 48)
    assert table.ffn_neurons.milliseconds == pytest.approx((0.0, 0.16, 0.32, 0.48))
    assert (table.dense_ms, table.fixed_ms) == pytest.approx((2 + 3 * 1.18, 2.0))
    assert table.bend_ms == pytest.approx(0.0, abs=1e-9)
    assert table.control == 1.0
    assert table.clock == "cpu"
    assert table.predict(table.check.counts) == pytest.approx(table.check.milliseconds)
    assert table.check.milliseconds == pytest.approx(additive((table.check.heads, table.check.ffn_neurons)))


def test_what_whole_models_take_beyond_the_sum_is_predicted(measured: Callable[..., LatencyTable]):
    blocks = 3 * 1.18

    def crowded(left: Left) -> float:
        alone = additive(left)
        part = (alone - 2.0) / blocks
        return alone + (1.0 * part * (1 - part) if sum(left[0]) and sum(left[1]) else 0.0)

    table = measured(crowded)
    assert table.bend_ms == pytest.approx(1.0)
    assert table.predict(table.check.counts) == pytest.approx(table.check.milliseconds)


def test_with_more_threads_wall_time_counts(measured: Callable[..., LatencyTable]):
    table = measured(additive, workload=Workload(batch=1, sequence=16, threads=2))
    assert table.clock == "wall"
    assert table.fixed_ms == pytest.approx(14.0)


def test_intervals_hold_what_was_measured_and_grow_with_the_noise(measured: Callable[..., LatencyTable]):
    quiet, loud = (measured(additive, noise=noise).ffn_neurons for noise in (0.001, 0.05))
    for block in (quiet, loud):
        ends = zip(block.lower, block.milliseconds, block.upper, strict=True)
        assert all(low <= value <= high for low, value, high in ends)
    assert loud.upper[-1] - loud.lower[-1] > 5 * (quiet.upper[-1] - quiet.lower[-1])


def test_a_dense_model_no_slower_than_the_emptied_one_is_no_measurement(measured: Callable[..., LatencyTable]):
    with pytest.raises(CompressorError, match="of no use"):
        measured(lambda _: 2.0)


def test_a_sequence_beyond_the_positions_is_an_error_before_any_export(measured: Callable[..., LatencyTable]):
    with pytest.raises(InputError, match="161 tokens: the model has 160 positions"):
        measured(additive, workload=Workload(batch=1, sequence=161))


def test_the_control_is_a_second_session_of_the_dense_file(monkeypatch: pytest.MonkeyPatch):
    given: dict[str, Path] = {}

    def interleave(files: Mapping[str, Path], *_: Any, **__: Any) -> None:
        given.update(files)
        raise InterruptedError

    monkeypatch.setattr(
        module, "write_files", lambda _s, points, place: {points.empty: place, points.dense: place / "d"}
    )
    monkeypatch.setattr(module, "interleave", interleave)
    with pytest.raises(InterruptedError):
        profile(subject(), Workload(batch=1, sequence=16), PROTOCOL)
    assert given[CONTROL] == given["d"]
