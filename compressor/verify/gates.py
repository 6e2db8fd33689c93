"""Gates: limits from the recipe against what was measured. They decide the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from compressor.verify.evaluate import Quality
from compressor.verify.latency import LatencyRow

Verdict = Literal["pass", "fail", "inconclusive"]
TIE = 1e-12
"""Metrics that differ by no more are the same: 0.79 - 0.78 is not 0.01 in floating point."""


@dataclass(frozen=True)
class Limits:
    """What a recipe demands; None = nothing.

    Attributes:
        metric_drop: most that the task's metric may fall, absolute (0.01 = one point).
        latency: largest ratio to the best dense configuration, at every measured shape and thread count.
        size: largest ratio of the files' bytes.
        macs: largest ratio of encoder MACs.
    """

    metric_drop: float | None = None
    latency: float | None = None
    size: float | None = None
    macs: float | None = None


@dataclass(frozen=True)
class Gate:
    """One limit and the verdict on it.

    Attributes:
        name: what is limited, e.g. ``"latency, 1 x 128, 1 thread" (batch x length)``.
        limit: the largest value allowed.
        value: as measured.
        lower: lower end of the value's interval; None where the value is exact.
        upper: upper end of it.
        verdict: ``"pass"``, ``"fail"``, or ``"inconclusive"`` when the interval holds the limit: of a latency always, of a
            drop of the metric where what was observed is within it; a larger one fails.
    """

    name: str
    limit: float
    value: float
    lower: float | None
    upper: float | None
    verdict: Verdict


def check_gates(
    limits: Limits,
    *,
    quality: Quality | None = None,
    latency: Sequence[LatencyRow] = (),
    size: float | None = None,
    macs: float | None = None,
) -> list[Gate]:
    """Return a verdict for every limit that is set.

    Args:
        limits: of the recipe.
        quality: compressed against dense.
        latency: rows of the model that is judged, under the options it is served with.
        size: bytes as a fraction of dense.
        macs: encoder MACs as a fraction of dense.

    Raises:
        ValueError: a limit is set on something that was not measured.
    """
    gates = [*_metric_gate(limits.metric_drop, quality), *_latency_gates(limits.latency, latency)]
    gates += _exact("size", limits.size, size)
    gates += _exact("macs", limits.macs, macs)
    wanted = {name for name, limit in vars(limits).items() if limit is not None}
    unmeasured = wanted - {gate.name.split(",")[0] for gate in gates}
    if unmeasured:
        raise ValueError(f"limits without a measurement: {', '.join(sorted(unmeasured))}")
    return gates


def failed(gates: Iterable[Gate]) -> bool:
    """Return whether any gate failed; an inconclusive one did not."""
    return any(gate.verdict == "fail" for gate in gates)


def _metric_gate(limit: float | None, quality: Quality | None) -> list[Gate]:
    """Judge the drop on these rows, which no noise of a machine moves, and whether they are enough to pass it."""
    if limit is None or quality is None:
        return []
    change = quality.difference
    certain: Verdict = "pass" if -change.lower <= limit + TIE else "inconclusive"
    verdict: Verdict = certain if -change.value <= limit + TIE else "fail"
    return [Gate("metric_drop", limit, 0.0 - change.value, 0.0 - change.upper, 0.0 - change.lower, verdict)]


def _latency_gates(limit: float | None, rows: Sequence[LatencyRow]) -> list[Gate]:
    if limit is None:
        return []
    return [_latency_gate(limit, row) for row in rows]


def _latency_gate(limit: float, row: LatencyRow) -> Gate:
    """Judge the interval, widened by how far two sessions of the same file were apart (A/A)."""
    ratio = row.beside_dense
    verdict: Verdict = "pass" if ratio.upper <= limit else "fail" if ratio.lower > limit else "inconclusive"
    return Gate(f"latency, {row.setting}", limit, ratio.value, ratio.lower, ratio.upper, verdict)


def _exact(name: str, limit: float | None, value: float | None) -> list[Gate]:
    if limit is None or value is None:
        return []
    return [Gate(name, limit, value, None, None, "pass" if value <= limit else "fail")]
