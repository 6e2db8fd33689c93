"""What each sublayer costs in onnxruntime at every head count and a grid of FFN widths, measured on whole models.

A lone block keeps its weights in the cache and tells little of the same block inside a model. So every point is a
whole model, embeddings and head included, as the exporter writes it, with ``h`` heads and no FFN, or ``n`` neurons
and no attention, in every layer; a block costs (that model - the emptied one) / layers. In the same interleaved rounds
whole models from empty to dense say what sums of such costs amount to, and a model with unlike layers, which the table
is not made of, tells what its predictions are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import CompressorError, InputError
from compressor.model import max_positions
from compressor.model.latency_table import BlockCosts, Check, LatencyTable, Workload
from compressor.model.runtime import SessionOptions
from compressor.verify.rounds import CONTROL, Protocol, Shape, clock_of
from compressor.verify.statistics import Resampling, redrawn_rounds
from compressor.verify.timing import interleave
from compressor.verify.variants import Left, Points, Subject, write_files

VERSION = 1
"""Of the way a table is made; other versions' tables are not used."""

Array = NDArray[np.float64]


def profile(subject: Subject, workload: Workload, protocol: Protocol) -> LatencyTable:
    """Measure what blocks cost.

    Args:
        subject: what is measured.
        workload: batch, length, threads and provider.
        protocol: of the rounds.

    Raises:
        InputError: the model cannot read as long a sequence.
        SetupError: onnxruntime or the provider is missing.
        CompressorError: the exporter cannot write the model.
    """
    longest = max_positions(subject.model)
    if workload.sequence > longest:
        raise InputError(f"a sequence of {workload.sequence} tokens: the model has {longest} positions")
    points = Points.of(subject)
    options = SessionOptions(provider=workload.provider, threads=workload.threads)
    shape = Shape(workload.batch, workload.sequence)
    clock = clock_of(options)
    with TemporaryDirectory(prefix="compressor-") as place:
        files = write_files(subject, points, Path(place))
        named = {path.stem: path for path in files.values()} | {CONTROL: files[points.dense]}
        timings = interleave(named, [shape], options=options, protocol=protocol)[shape]
    times = {left: 1e3 * timings.medians(path.stem, clock) for left, path in files.items()}
    measured = _Measured(points, times, timings.loads, protocol.resampling)
    control = 1e3 * np.median(timings.medians(CONTROL, clock)) / np.median(times[points.dense])
    return measured.table(workload, clock, float(control))


@dataclass(frozen=True)
class _Measured:
    """Milliseconds of every model in every round, shape (rounds,), and the loads of the rounds."""

    points: Points
    times: Mapping[Left, Array]
    loads: np.ndarray
    resampling: Resampling

    def table(self, workload: Workload, clock: Any, control: float) -> LatencyTable:
        """Return the table.

        Raises:
            CompressorError: the measurement makes no sense.
        """
        tail = 50.0 * (1.0 - self.resampling.confidence)
        draws = [self._costs(rounds) for rounds in redrawn_rounds(self.loads, self.resampling)]
        values = self._costs(np.arange(len(self.loads)))
        ends = np.percentile(draws, [tail, 100.0 - tail], axis=0)
        rows = np.stack([values, *ends])
        heads, neurons = (
            BlockCosts((0, *counts), *((0.0, *row.tolist()) for row in part))
            for counts, part in zip(
                (self.points.heads, self.points.neurons),
                np.split(rows[:, 1:], [len(self.points.heads)], axis=1),
                strict=True,
            )
        )
        return LatencyTable(
            workload=workload,
            clock=clock,
            layers=self.points.layers,
            heads=heads,
            ffn_neurons=neurons,
            dense_ms=self._median(self.points.dense),
            fixed_ms=self._median(self.points.empty),
            bend_ms=self._bend(heads, neurons),
            check=Check(*self.points.unlike, *rows[:, 0].tolist()),
            control=control,
            confidence=self.resampling.confidence,
        )

    def _costs(self, rounds: np.ndarray) -> Array:
        """Return what the model of the check took, and what one block of every measured count costs."""
        stacks = [left for lefts in self.points.series[1:] for left in lefts.values()]
        models = [self.points.unlike, self.points.empty, *stacks]
        unlike, empty, *rest = np.median(np.stack([self.times[left][rounds] for left in models]), axis=1)
        return np.array([unlike, *((one - empty) / self.points.layers for one in rest)])

    def _median(self, left: Left) -> float:
        return float(np.median(self.times[left]))

    def _bend(self, heads: BlockCosts, neurons: BlockCosts) -> float:
        """Fit by least squares what whole models take beyond the line from empty to dense; see ``LatencyTable``.

        Raises:
            CompressorError: the dense model took no longer than the emptied one.
        """
        fixed, dense = self._median(self.points.empty), self._median(self.points.dense)
        whole = heads.milliseconds[-1] + neurons.milliseconds[-1]
        if dense <= fixed or whole <= 0:
            raise CompressorError(
                f"the dense model took {dense:.4g} ms, the one with every sublayer emptied {fixed:.4g} ms: this "
                "measurement is of no use",
                hint="repeat it on a machine with less other work",
            )
        above, shape = [], []
        for left in self.points.series[0].values():
            costs = (np.interp(left[i][0], of.counts, of.milliseconds) for i, of in enumerate((heads, neurons)))
            part = float(sum(costs)) / whole
            above.append(self._median(left) - fixed - (dense - fixed) * part)
            shape.append(part * (1 - part))
        bend = float(np.dot(above, shape) / max(np.dot(shape, shape), 1e-9))
        return float(np.clip(bend, *(0.5 * (dense - fixed) * np.array([-1, 1]))))
