"""When to prune on the way to a sparsity, and how much: pure functions of steps and of progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Decay = Literal["exp", "cos", "linear", "cube", "cubic"]
EVENTS = 40
"""Events of a schedule whose frequency is left open, as in the seed's example script."""


def _exp(progress: float, final: float, initial: float) -> float:
    return 1 - (1 - initial) * math.pow((1 - final) / (1 - initial), progress)


CURVES: Mapping[Decay, Callable[[float, float, float], float]] = {
    "exp": _exp,
    "cos": lambda p, final, initial: initial + (final - initial) * (1 - math.cos(math.pi / 2 * p)),
    "linear": lambda p, final, initial: initial + (final - initial) * p,
    "cube": lambda p, final, initial: initial + (final - initial) * p**3,
    "cubic": lambda p, final, initial: initial + (final - initial) * (1 - (1 - p) ** 3),
}
"""From progress in [0, 1], final and initial sparsity to the sparsity. ``exp`` and ``cubic`` begin fast, ``cube`` and ``cos`` slow.

``cubic`` is the usual one (Zhu and Gupta, 2017, https://arxiv.org/abs/1710.01878); ``cube`` is neural-compressor's.
"""


def sparsity_at(decay: Decay, progress: float, final: float, *, initial: float = 0.0) -> float:
    """Return the sparsity at some progress in [0, 1]; at both ends exactly the given ones, whatever the rounding between.

    Args:
        decay: the curve.
        progress: 0 = nothing new is pruned yet, 1 = done.
        final: in [0, 1).
        initial: what is pruned already, at most ``final``.
    """
    if progress <= 0:
        return initial
    return final if progress >= 1 else CURVES[decay](progress, final, initial)


def cubic_ramp(step: float, *, start: float, end: float, initial: float, final: float) -> float:
    """Return the value at an optimizer step: initial up to ``start``, final from ``end`` on, between them fast at first.

    ``final + (initial - final) * ((end - step) / (end - start))^3`` (Zhu and Gupta 2017; Sanh et al. 2020, section 4).
    """
    if step <= start:
        return initial
    return final if step >= end else final + (initial - final) * ((end - step) / (end - start)) ** 3


@dataclass(frozen=True)
class Schedule:
    """Pruning events, in optimizer steps.

    Attributes:
        start: step of the first event.
        end: last step at which there may be one; equal to ``start``: one event, which prunes everything.
        frequency: steps from one event to the next.
    """

    start: int
    end: int
    frequency: int = 1

    @property
    def last(self) -> int:
        """Step of the last event."""
        return self.start + (self.end - self.start) // self.frequency * self.frequency

    def events(self) -> Iterator[int]:
        """Yield the steps at which something may be pruned; the first of several prunes nothing new."""
        yield from range(self.start, self.end + 1, self.frequency)

    def progress(self, step: int) -> float | None:
        """Return the progress in [0, 1] of the event at a step, or None where there is none.

        The last event has progress 1 exactly. So has a lone one: of no ramp, the end is what is asked for.
        """
        if not self.start <= step <= self.end or (step - self.start) % self.frequency:
            return None
        return 1.0 if step == self.last else (step - self.start) / (self.last - self.start)

    def substep(self, step: int, *, parts: int = 4) -> int | None:
        """Return which part of the way to the next event a step ends, 1 to ``parts - 1``; None at other steps and events.

        For the progressive mode: newly doomed weights go in parts, lowest score first, until the next event's masks hold.
        """
        since = (step - self.start) % self.frequency
        width = self.frequency // parts
        if not self.start <= step < self.last or not width or not since or since % width:
            return None
        return since // width if since // width < parts else None


def epoch_schedule(
    per_epoch: float, *, epochs: float, warm: float = 0.0, cooldown: float = 0.0, frequency: int = -1
) -> Schedule:
    """Return the schedule of a training: dense epochs first, then the ramp, then epochs with fixed masks.

    As in neural-compressor's example: ``start = int(warm * n)``, ``end = int((epochs - cooldown) * n)`` with n optimizer
    steps per epoch; a frequency below 1 makes 40 events.

    Args:
        per_epoch: optimizer steps, rows divided by batch size: the fraction is kept.
        epochs: in all.
        warm: dense ones before the first event.
        cooldown: after the last event.
        frequency: steps between events.
    """
    start, end = int(warm * per_epoch), int((epochs - cooldown) * per_epoch)
    return Schedule(start, end, frequency if frequency >= 1 else max(1, (end - start + 1) // EVENTS))
