"""Which unit counts of a latency table cost more than they should."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compressor.model.groups import UnitKind
from compressor.model.latency_table import KINDS, LatencyTable


@dataclass(frozen=True)
class SlowWidth:
    """A unit count that costs more than it should.

    Attributes:
        kind: of the units.
        count: how many are left.
        milliseconds: what they cost.
        instead: a larger count that costs less, or None where the cost is only above its neighbours' line.
        instead_ms: what the larger count costs; or the height of the line.
    """

    kind: UnitKind
    count: int
    milliseconds: float
    instead: int | None
    instead_ms: float


def slow_widths(table: LatencyTable) -> list[SlowWidth]:
    """Return the counts that cost more, by more than the intervals, than a larger one or than their neighbours' line.

    The line from no units to the second count is left out: the first unit pays for the sublayer's own operators.
    """
    found = []
    for kind in KINDS:
        costs = table.block(kind)
        for place in range(1, len(costs.counts) - 1):
            slow = SlowWidth(kind, costs.counts[place], costs.milliseconds[place], None, 0.0)
            later = range(place + 1, len(costs.counts))
            best = min(later, key=lambda index: costs.upper[index])
            before, after = place - 1, place + 1
            part = (slow.count - costs.counts[before]) / (costs.counts[after] - costs.counts[before])
            line = (1 - part) * costs.upper[before] + part * costs.upper[after]
            if costs.lower[place] > costs.upper[best]:
                found.append(replace(slow, instead=costs.counts[best], instead_ms=costs.milliseconds[best]))
            elif place > 1 and costs.lower[place] > line:
                found.append(replace(slow, instead_ms=line))
    return found
