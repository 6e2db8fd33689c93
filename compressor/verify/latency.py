"""Latency of ONNX files in onnxruntime, against the first of them and against the best of others.

All files, under the tuned and under onnxruntime's default options, take turns in the same rounds (``rounds.py``), in a
fresh process (``timing.py``), so that any two of them can be compared. A second session of the first model (A/A) shows what a difference of nothing looks like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from compressor.model.runtime import SessionOptions
from compressor.verify.rounds import CLOCKS, CONTROL, Baseline, Protocol, Shape, Timings, clock_of
from compressor.verify.section import BEST_DENSE
from compressor.verify.statistics import Interval, ratio_of_medians
from compressor.verify.timing import interleave

PERCENTILES = (50, 90, 95)


@dataclass(frozen=True)
class Against:
    """A ratio to the best of some models.

    Attributes:
        model: the fastest of them.
        slow_fusion: whether it was fastest with the slow fusion on.
        ratio: of medians over rounds, with a paired bootstrap interval.
    """

    model: str
    slow_fusion: bool
    ratio: Interval


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
        wall_ms: percentiles of the wall time of a call, ``{"p50", "p90", "p95"}``.
        cpu_ms: the same of the CPU time of the calling thread.
        clock: ``"cpu"`` with one CPU thread (robust on a busy machine), else ``"wall"``: what ratios are taken of.
        ratio: to the first model under the same options, of medians over rounds, with a paired bootstrap interval.
        wall_ratio: the same by wall time.
        control: the ratio of the first model's second session to its first (A/A): what no difference looks like.
        against: the ratio to every baseline of the protocol, by its name.
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
    against: Mapping[str, Against] = field(default_factory=dict)

    @property
    def clocked_ms(self) -> Mapping[str, float]:
        """Percentiles of the time of a call by the clock that ratios are taken of."""
        return self.cpu_ms if self.clock == "cpu" else self.wall_ms

    @property
    def setting(self) -> str:
        """Input and threads, in words."""
        return f"{self.batch} x {self.sequence}, {self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"

    @property
    def beside_dense(self) -> Interval:
        """The ratio to the best dense configuration, its interval widened by how far two sessions of one file were apart (A/A)."""
        apart = abs(self.control.value - 1)
        ratio = self.against[BEST_DENSE].ratio if BEST_DENSE in self.against else self.ratio
        return replace(ratio, lower=ratio.lower * (1 - apart), upper=ratio.upper * (1 + apart))


def measure(
    paths: Mapping[str, Path],
    shapes: Sequence[Shape],
    *,
    threads: Sequence[int] = (1,),
    provider: str = "cpu",
    protocol: Protocol | None = None,
) -> list[LatencyRow]:
    """Time ONNX files against the first of them.

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
    measured = [_measure(paths, shapes, options, protocol) for options in settings]
    tunings = (False, True) if protocol.untuned and provider == "cpu" else (False,)
    return [row for one in measured for slow in tunings for row in _rows(one, slow_fusion=slow)]


@dataclass(frozen=True)
class _Measured:
    """All rounds of all models at one thread count."""

    names: Sequence[str]
    timings: Mapping[Shape, Timings]
    options: SessionOptions
    protocol: Protocol

    @property
    def clock(self) -> str:
        return clock_of(self.options)

    def ratio(self, shape: Shape, model: str, base: str, clock: str) -> Interval:
        timings = self.timings[shape]
        mine, other = (timings.medians(one, clock) for one in (model, base))
        return ratio_of_medians(mine, other, self.protocol.resampling, loads=timings.loads)

    def milliseconds(self, shape: Shape, model: str, clock: str) -> dict[str, float]:
        calls = np.concatenate([turn[model][CLOCKS.index(clock)] for turn in self.timings[shape].rounds]) * 1e3
        return {f"p{percent}": float(np.percentile(calls, percent)) for percent in PERCENTILES}

    def against(self, shape: Shape, model: str) -> dict[str, Against]:
        best = {name: self._best(shape, baseline) for name, baseline in self.protocol.baselines.items()}
        return {
            name: Against(*found, self.ratio(shape, model, _key(*found), self.clock))
            for name, found in best.items()
            if found is not None
        }

    def _best(self, shape: Shape, baseline: Baseline) -> tuple[str, bool] | None:
        slow = (True,) if baseline.options == "default" else (False, True)
        known = self.timings[shape].rounds[0]
        pairs = [(name, each) for name in baseline.models for each in slow if _key(name, each) in known]
        medians = {pair: np.median(self.timings[shape].medians(_key(*pair), self.clock)) for pair in pairs}
        return min(medians, key=lambda pair: medians[pair], default=None)


def _key(name: str, slow_fusion: bool) -> str:  # noqa: FBT001 - the two together name a session
    return f"{name}, default options" if slow_fusion else name


def _measure(
    paths: Mapping[str, Path], shapes: Sequence[Shape], options: SessionOptions, protocol: Protocol
) -> _Measured:
    first = next(iter(paths))
    untuned = {}
    if protocol.untuned and options.provider == "cpu":
        untuned = {_key(name, slow_fusion=True): path for name, path in paths.items()}
    files = {**paths, **untuned, CONTROL: paths[first]}
    timings = interleave(files, shapes, options=options, protocol=protocol, untuned=untuned)
    return _Measured(tuple(paths), timings, options, protocol)


def _rows(measured: _Measured, *, slow_fusion: bool) -> Iterator[LatencyRow]:
    first, clock = measured.names[0], measured.clock
    for shape, timings in measured.timings.items():
        for name in measured.names:
            key, base = _key(name, slow_fusion), _key(first, slow_fusion)
            yield LatencyRow(
                model=name,
                batch=shape.batch,
                sequence=shape.sequence,
                threads=measured.options.threads,
                provider=measured.options.provider,
                slow_fusion=slow_fusion,
                rounds=len(timings.rounds),
                wall_ms=measured.milliseconds(shape, key, "wall"),
                cpu_ms=measured.milliseconds(shape, key, "cpu"),
                clock=clock,
                ratio=measured.ratio(shape, key, base, clock),
                wall_ratio=measured.ratio(shape, key, base, "wall"),
                control=measured.ratio(shape, CONTROL, first, clock),
                against=measured.against(shape, key),
            )
