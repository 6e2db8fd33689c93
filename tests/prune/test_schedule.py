from __future__ import annotations

import itertools

import pytest

from compressor.prune import Schedule, epoch_schedule, sparsity_at
from compressor.prune.schedule import CURVES

EACH = pytest.mark.parametrize("decay", CURVES)


@pytest.mark.parametrize(
    ("decay", "values"),
    [
        ("exp", [0, 0.437659, 0.683772, 0.822172, 0.9]),
        ("cos", [0, 0.068508, 0.263604, 0.555585, 0.9]),
        ("linear", [0, 0.225, 0.45, 0.675, 0.9]),
        ("cube", [0, 0.014063, 0.1125, 0.379688, 0.9]),
        ("cubic", [0, 0.9 * (1 - 0.75**3), 0.9 * (1 - 0.5**3), 0.9 * (1 - 0.25**3), 0.9]),
    ],
)
def test_the_curves_have_their_published_values(decay: str, values: list[float]):
    found = [sparsity_at(decay, k / 4, 0.9) for k in range(5)]  # type: ignore[arg-type]
    assert found == pytest.approx(values, abs=6e-7)


@EACH
@pytest.mark.parametrize("final", [0.25, 0.5, 0.75, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("initial", [0.0, 0.2])
def test_ends_are_exact_and_the_way_is_monotone(decay: str, final: float, initial: float):
    for n in (1, 2, 3, 7, 41, 399):
        values = [sparsity_at(decay, k / n, final, initial=initial) for k in range(n + 1)]  # type: ignore[arg-type]
        assert values[0] == initial
        assert values[-1] == final
        assert all(one <= other for one, other in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (epoch_schedule(3668 / 16, epochs=15, warm=1, cooldown=5, frequency=50), (229, 2292, 42, 2279)),
        (epoch_schedule(67349 / 16, epochs=15, cooldown=5, frequency=500), (0, 42093, 85, 42000)),
    ],
    ids=["MRPC", "SST-2"],
)
def test_events_are_the_seeds(schedule: Schedule, expected: tuple[int, ...]):
    events = list(schedule.events())
    assert (schedule.start, schedule.end, len(events), schedule.last) == expected
    assert events[-1] == schedule.last
    found = [schedule.progress(step) for step in events]
    assert found == pytest.approx([k / (len(events) - 1) for k in range(len(events))])
    assert found[-1] == 1.0


def test_an_open_frequency_makes_forty_events_or_so():
    schedule = epoch_schedule(3668 / 16, epochs=15, warm=1, cooldown=5)
    assert schedule.frequency == 51
    assert len(list(schedule.events())) == 41


@pytest.mark.parametrize("schedule", [Schedule(7, 7), Schedule(7, 7, 50), Schedule(7, 20, 50)])
def test_a_lone_event_prunes_everything(schedule: Schedule):
    assert list(schedule.events()) == [7]
    assert schedule.progress(7) == 1.0


def test_between_events_and_outside_nothing_happens():
    schedule = Schedule(10, 35, 10)
    assert [step for step in range(60) if schedule.progress(step) is not None] == [10, 20, 30]


def test_parts_of_an_interval_end_at_quarters():
    schedule = Schedule(10, 35, 8)
    found = {step: schedule.substep(step) for step in range(50) if schedule.substep(step)}
    assert found == {12: 1, 14: 2, 16: 3, 20: 1, 22: 2, 24: 3, 28: 1, 30: 2, 32: 3}
    assert not any(Schedule(0, 30, 3).substep(step) for step in range(40))  # no four parts of three steps
