"""Interleaved rounds of calls: the part of the timing protocol that touches onnxruntime.

Sequential blocks differ by up to 9 % on a shared machine, two sessions of the *same* file by 1 to 2 % (memory
placement). So all models take turns in shuffled rounds, and every model is loaded several times anew, in another order.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compressor.model.runtime import SessionOptions, open_session
from compressor.progress import track
from compressor.verify.inference import call, feeds, input_types, unpadded
from compressor.verify.statistics import DEFAULT, Resampling

CONTROL = "control (A/A)"
CLOCKS = ("wall", "cpu")
LOADS = 5
"""How often every model is loaded anew; rounds are shared out among the loads."""
MEASUREMENT_SECONDS = 0.04
WARM_UP_CALLS = 5
WARM_UP_AGREEMENT = 0.05
WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Shape:
    """Of the inputs: samples per call, and tokens per sample."""

    batch: int
    sequence: int


@dataclass(frozen=True)
class Baseline:
    """The fastest of some models under some options, at every shape and thread count anew.

    Attributes:
        models: their names; those that are not measured do not count.
        options: ``"any"``, or ``"default"``: as onnxruntime runs the files by default.
    """

    models: tuple[str, ...]
    options: Literal["any", "default"] = "any"


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        rounds: in which all models take turns; at least 15 for a claim.
        vocabulary: ids are drawn below it; the default is within every model's.
        untuned: measure beside it how onnxruntime runs the files by default (CPU only).
        resampling: of the rounds, for the ratios' intervals; its seed also orders the turns and draws the ids.
        baselines: what ratios are taken to beside the first model, by name.
    """

    rounds: int = 15
    vocabulary: int = 100
    untuned: bool = True
    resampling: Resampling = DEFAULT
    baselines: Mapping[str, Baseline] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """What interleaved rounds measured at one shape.

    Attributes:
        rounds: for every round, each model's times, shape (2, calls): wall and CPU seconds.
        loads: number of the load that each round belongs to, shape (rounds,).
    """

    rounds: Sequence[Mapping[str, np.ndarray]]
    loads: np.ndarray

    def medians(self, model: str, clock: str) -> np.ndarray:
        """Return the median seconds of a call in every round, shape (rounds,)."""
        return np.array([np.median(turn[model][CLOCKS.index(clock)]) for turn in self.rounds])


def clock_of(options: SessionOptions) -> str:
    """Return ``"cpu"`` where the calling thread does all the work (robust on a busy machine), else ``"wall"``."""
    return "cpu" if options.provider == "cpu" and options.threads == 1 else "wall"


def interleave(
    files: Mapping[str, Path],
    shapes: Sequence[Shape],
    *,
    options: SessionOptions,
    protocol: Protocol,
    untuned: Collection[str] = (),
) -> dict[Shape, Timings]:
    """Time ONNX files in turn; the protocol itself, without a verdict.

    Args:
        files: by name; a file of two names has two sessions.
        shapes: of the inputs.
        options: of every session.
        protocol: how to measure.
        untuned: names whose sessions have the slow fusion on instead, as onnxruntime does by default.
    """
    generator = np.random.default_rng(protocol.resampling.seed)
    rounds = [list(part) for part in np.array_split(np.arange(protocol.rounds), min(LOADS, protocol.rounds))]
    loads = np.repeat(np.arange(len(rounds)), [len(part) for part in rounds])
    times: dict[Shape, list[dict[str, np.ndarray]]] = {shape: [] for shape in shapes}
    setting = f"{options.threads or 'all'} thread{'' if options.threads == 1 else 's'}"
    for part in track(rounds, f"latency, {setting}"):
        order = generator.permutation(list(files)).tolist()
        sessions = {
            name: open_session(files[name], replace(options, slow_fusion=True) if name in untuned else options)
            for name in order
        }
        for shape in shapes:
            ids = generator.integers(0, protocol.vocabulary, (shape.batch, shape.sequence))
            times[shape] += _take_turns(sessions, ids, len(part), generator)
        sessions.clear()  # before the next load: two of them would take twice the memory
    return {shape: Timings(turns, loads) for shape, turns in times.items()}


def _take_turns(
    sessions: Mapping[str, Any], ids: np.ndarray, rounds: int, generator: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """Return, for every round, each model's times, shape (2, calls): wall and CPU seconds."""
    batch = unpadded(ids)
    inputs = {name: feeds(input_types(session), batch) for name, session in sessions.items()}
    calls = {}
    for name, session in sessions.items():
        seconds = _warm_up(session, inputs[name])
        calls[name] = max(1, round(MEASUREMENT_SECONDS / seconds))
    return [
        {name: _time(sessions[name], inputs[name], calls[name]) for name in generator.permutation(list(sessions))}
        for _ in range(rounds)
    ]


def _warm_up(session: Any, inputs: Mapping[str, np.ndarray]) -> float:
    """Call until two windows in a row agree, or time is up; return the seconds of a call."""
    deadline = time.perf_counter() + WARM_UP_SECONDS
    before = np.inf
    while True:
        now = float(np.median(_time(session, inputs, WARM_UP_CALLS)[0]))
        if abs(now / before - 1) <= WARM_UP_AGREEMENT or time.perf_counter() > deadline:
            return now
        before = now


def _time(session: Any, inputs: Mapping[str, np.ndarray], calls: int) -> np.ndarray:
    """Return wall and CPU seconds of every call, shape (2, calls)."""
    times = np.empty((2, calls))
    for index in range(calls):
        wall, cpu = time.perf_counter(), time.thread_time()
        call(session, inputs)
        times[:, index] = time.perf_counter() - wall, time.thread_time() - cpu
    return times
