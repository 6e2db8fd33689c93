from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from compressor.verify.evaluate import Quality
from compressor.verify.gates import Limits, check_gates, failed
from compressor.verify.latency import Against, LatencyRow
from compressor.verify.statistics import Interval
from compressor.verify.tables import gates_section


def interval(value: float, half: float = 0.0) -> Interval:
    return Interval(value, value - half, value + half, 0.95)


def quality(difference: Interval) -> Quality:
    return Quality(100, "accuracy", {"accuracy": 0.8}, {"accuracy": 0.8 + difference.value}, difference)


def latency(ratio: Interval, *, control: float = 1.0, slow_fusion: bool = False) -> LatencyRow:
    times = {"p50": 1.0, "p90": 1.1}
    return LatencyRow(
        model="compressed",
        batch=1,
        sequence=128,
        threads=1,
        provider="cpu",
        slow_fusion=slow_fusion,
        rounds=15,
        wall_ms=times,
        cpu_ms=times,
        clock="cpu",
        ratio=ratio,
        wall_ratio=ratio,
        control=interval(control),
    )


@pytest.mark.parametrize(
    ("drop", "half", "verdict"),
    [
        (0.0, 0.03, "inconclusive"),
        (0.01, 0.0001, "inconclusive"),
        (0.0, 0.009, "pass"),
        (0.01, 0.0, "pass"),
        (-0.02, 0.03, "pass"),
        (-0.02, 0.031, "inconclusive"),
        (0.0101, 0.03, "fail"),
        (0.05, 0.03, "fail"),
    ],
)
def test_metric_drop_fails_by_the_observed_drop_and_passes_by_its_interval(drop: float, half: float, verdict: str):
    (gate,) = check_gates(Limits(metric_drop=0.01), quality=quality(interval(-drop, half)))
    assert gate.verdict == verdict
    assert gate.value == pytest.approx(drop)
    assert (gate.lower, gate.upper) == pytest.approx((drop - half, drop + half))


def test_a_drop_that_the_rows_are_too_few_to_be_sure_of_is_explained():
    unsure, sure = (
        check_gates(Limits(metric_drop=0.01), quality=quality(interval(0.0, half))) for half in (0.03, 0.003)
    )
    (note,) = gates_section([asdict(gate) for gate in unsure]).notes
    assert "more validation rows" in note
    assert gates_section([asdict(gate) for gate in sure]).notes == ()


def test_a_drop_of_exactly_the_limit_passes_in_floating_point():
    (gate,) = check_gates(Limits(metric_drop=0.01), quality=quality(interval(0.78 - 0.79)))
    assert gate.value > 0.01  # 0.79 - 0.78 = 0.010000000000000009
    assert gate.verdict == "pass"


@pytest.mark.parametrize(
    ("ratio", "control", "verdict"),
    [
        (interval(0.55, 0.02), 1.0, "pass"),
        (interval(0.65, 0.02), 1.0, "fail"),
        (interval(0.59, 0.02), 1.0, "inconclusive"),
        (interval(0.61, 0.02), 1.0, "inconclusive"),
        (interval(0.58, 0.01), 1.05, "inconclusive"),  # two sessions of one file were 5 % apart
        (interval(0.62, 0.01), 0.95, "inconclusive"),
        (interval(0.3, 0.01), 1.05, "pass"),
    ],
)
def test_latency_is_judged_by_its_interval_widened_by_the_control(ratio: Interval, control: float, verdict: str):
    (gate,) = check_gates(Limits(latency=0.6), latency=[latency(ratio, control=control)])
    assert gate.verdict == verdict
    assert gate.name == "latency, 1 x 128, 1 thread"


def test_latency_is_judged_against_the_best_dense_configuration():
    best = Against("dense fused", slow_fusion=False, ratio=interval(0.65, 0.01))
    row = replace(latency(interval(0.5, 0.01)), against={"best dense": best})
    (gate,) = check_gates(Limits(latency=0.6), latency=[row])
    assert (gate.value, gate.verdict) == (0.65, "fail")


@pytest.mark.parametrize(("value", "verdict"), [(0.6, "pass"), (0.6001, "fail")])
def test_size_and_macs_are_exact(value: float, verdict: str):
    gates = check_gates(Limits(size=0.6, macs=0.6), size=value, macs=value)
    assert [(gate.name, gate.verdict, gate.lower) for gate in gates] == [
        ("size", verdict, None),
        ("macs", verdict, None),
    ]


def test_no_limits_make_no_gates():
    assert check_gates(Limits(), quality=quality(interval(-0.5)), size=2.0, macs=2.0) == []


def test_a_limit_on_what_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="limits without a measurement: latency, macs"):
        check_gates(Limits(latency=0.5, macs=0.5, size=0.5), size=0.4)


def test_only_a_failure_fails():
    noise = check_gates(Limits(latency=0.6), latency=[latency(interval(0.6, 0.1))])
    noise += check_gates(Limits(metric_drop=0.01), quality=quality(interval(0.0, 0.03)))
    assert [gate.verdict for gate in noise] == ["inconclusive"] * 2
    assert not failed(noise)
    assert failed([*noise, *check_gates(Limits(size=0.5), size=0.9)])
