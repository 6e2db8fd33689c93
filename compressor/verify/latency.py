"""Interleaved timing of ONNX files in onnxruntime: the protocol of a claim that survives a busy machine.

Sequential blocks differ by up to 9 % on a shared machine, two sessions of the *same* file by 1 to 2 % (memory
placement). So all models take turns in shuffled rounds, every model is loaded several times anew, and a second session
of the first model (A/A) shows what a difference of nothing looks like.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compressor.model.runtime import SessionOptions, open_session
from compressor.progress import track
from compressor.verify.inference import call, feeds, input_types
from compressor.verify.statistics import DEFAULT, Interval, Resampling, ratio_of_medians

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
class LatencyRow:
    """Latency of one model at one shape, and its ratio to the first model.

    Attributes:
        model: its name.
        batch: samples per call.
        sequence: tokens per sample, none of them padding.
        threads: intra-op threads; 0 = onnxruntime's own choice.
        provider: e.g. ``"cpu"``.
        slow_fusion: whether onnxruntime's SkipLayerNormalization fusion was on, as it is by default.
        rounds: how many times the models took turns.
        wall_ms: median and 90th percentile of the wall time of a call, ``{"p50", "p90"}``.
        cpu_ms: the same of the CPU time of the calling thread.
        clock: ``"cpu"`` with one CPU thread (robust on a busy machine), else ``"wall"``: what ``ratio`` is taken of.
        ratio: to the first model, of medians over rounds, with a paired bootstrap interval.
        wall_ratio: the same by wall time.
        control: the ratio of the first model's second session to its first (A/A): what no difference looks like.
    """

    model: str
    batch: int
    sequence: int
    threads: int
    provider: str
    slow_fusion: bool
    rounds: int
    wall_ms: Mapping[str, float]
    cpu_ms: Mapping[str, float]
    clock: str
    ratio: Interval
    wall_ratio: Interval
    control: Interval


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        rounds: in which all models take turns; at least 15 for a claim.
        vocabulary: ids are drawn below it; the default is within every model's.
        untuned: measure beside it how onnxruntime runs the files by default (CPU only).
        resampling: of the rounds, for the ratios' intervals; its seed also orders the turns and draws the ids.
    """

    rounds: int = 15
    vocabulary: int = 100
    untuned: bool = True
    resampling: Resampling = DEFAULT


def measure(
    paths: Mapping[str, Path],
    shapes: Sequence[Shape],
    *,
    threads: Sequence[int] = (1,),
    provider: str = "cpu",
    protocol: Protocol | None = None,
) -> list[LatencyRow]:
    """Time ONNX files against the first of them, all with the same session options.

    Args:
        paths: the files by name; the first is what the others are compared with.
        shapes: of the inputs.
        threads: intra-op thread counts, each measured on its own.
        provider: of onnxruntime, e.g. ``"cpu"``.
        protocol: how to measure.

    Returns:
        A row per thread count, fusion setting, shape and model.

    Raises:
        InputError: a file cannot be loaded, or cannot run at one of the shapes.
        SetupError: onnxruntime or the provider is missing.
    """
    protocol = protocol or Protocol()
    settings = [SessionOptions(provider=provider, threads=count) for count in threads]
    if protocol.untuned and provider == "cpu":
        settings += [replace(options, slow_fusion=True) for options in settings]
    return [row for options in settings for row in _measure(paths, shapes, options, protocol)]


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
    files: Mapping[str, Path], shapes: Sequence[Shape], *, options: SessionOptions, protocol: Protocol
) -> dict[Shape, Timings]:
    """Time ONNX files in turn; the protocol itself, without a verdict.

    Args:
        files: by name.
        shapes: of the inputs.
        options: of every session.
        protocol: how to measure; a file named twice has two sessions.
    """
    generator = np.random.default_rng(protocol.resampling.seed)
    rounds = [list(part) for part in np.array_split(np.arange(protocol.rounds), min(LOADS, protocol.rounds))]
    loads = np.repeat(np.arange(len(rounds)), [len(part) for part in rounds])
    times: dict[Shape, list[dict[str, np.ndarray]]] = {shape: [] for shape in shapes}
    setting = f"{options.threads or 'all'} thread{'' if options.threads == 1 else 's'}"
    for part in track(rounds, f"latency, {setting}{', untuned' if options.slow_fusion else ''}"):
        order = generator.permutation(list(files)).tolist()
        sessions = {name: open_session(files[name], options) for name in order}
        for shape in shapes:
            ids = generator.integers(0, protocol.vocabulary, (shape.batch, shape.sequence))
            times[shape] += _take_turns(sessions, ids, len(part), generator)
    return {shape: Timings(turns, loads) for shape, turns in times.items()}


def _measure(
    paths: Mapping[str, Path], shapes: Sequence[Shape], options: SessionOptions, protocol: Protocol
) -> Iterator[LatencyRow]:
    first = next(iter(paths))
    timings = interleave({**paths, CONTROL: paths[first]}, shapes, options=options, protocol=protocol)
    for shape in shapes:
        for name in paths:
            yield _row(name, _Measured(first, shape, timings[shape], protocol.resampling), options)


def _take_turns(
    sessions: Mapping[str, Any], ids: np.ndarray, rounds: int, generator: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """Return, for every round, each model's times, shape (2, calls): wall and CPU seconds."""
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
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


@dataclass(frozen=True)
class _Measured:
    """All rounds at one shape, and the model that the others are compared with."""

    first: str
    shape: Shape
    timings: Timings
    resampling: Resampling

    def milliseconds(self, model: str, clock: str) -> dict[str, float]:
        calls = np.concatenate([turn[model][CLOCKS.index(clock)] for turn in self.timings.rounds]) * 1e3
        return {f"p{percent}": float(np.percentile(calls, percent)) for percent in (50, 90)}

    def ratio(self, model: str, clock: str) -> Interval:
        mine, base = (self.timings.medians(one, clock) for one in (model, self.first))
        return ratio_of_medians(mine, base, self.resampling, loads=self.timings.loads)


def _row(name: str, measured: _Measured, options: SessionOptions) -> LatencyRow:
    clock = clock_of(options)
    return LatencyRow(
        model=name,
        batch=measured.shape.batch,
        sequence=measured.shape.sequence,
        threads=options.threads,
        provider=options.provider,
        slow_fusion=options.slow_fusion,
        rounds=len(measured.timings.rounds),
        wall_ms=measured.milliseconds(name, "wall"),
        cpu_ms=measured.milliseconds(name, "cpu"),
        clock=clock,
        ratio=measured.ratio(name, clock),
        wall_ratio=measured.ratio(name, "wall"),
        control=measured.ratio(CONTROL, clock),
    )
