"""What blocks of a model cost in onnxruntime, as data: measured by ``verify/profile.py``, read by searches for masks.

``predicted latency = g(sum over sublayers of the cost of what is left in each)``. Blocks are measured in models that
hold little else, whose weights stay in the caches. ``g`` puts back what the same blocks cost when a whole model's
weights compete for them: with ``x`` the sum's part of the dense model's sum,
``g = fixed + (dense - fixed) x + bend x (1 - x)``, exact for the dense and for the emptied model, ``bend`` fitted to
whole models between them.

Costs are what was measured, not smoothed: a width may cost more than a larger one. A search that may choose any width
then avoids the slow ones by itself; one that relies on costs growing must not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from compressor.errors import CompressorError, InputError
from compressor.model.groups import UnitKind

KINDS: tuple[UnitKind, UnitKind] = ("heads", "ffn_neurons")
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Workload:
    """What latency is measured with.

    Attributes:
        batch: samples per call.
        sequence: tokens per sample, none of them padding.
        threads: intra-op threads; 0 = onnxruntime's own choice.
        provider: ``"cpu"``, ``"cuda"`` or ``"tensorrt"``.
    """

    __pydantic_config__ = STRICT

    batch: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=0)] = 1
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"

    def __str__(self) -> str:
        threads = f"{self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"
        return f"{self.batch} x {self.sequence}, {threads if self.provider == 'cpu' else self.provider}"


@dataclass(frozen=True)
class BlockCosts:
    """Cost of one sublayer of one layer, by how many of its units are left.

    Attributes:
        counts: measured unit counts, ascending, from 0 to all.
        milliseconds: what the units cost beyond the emptied sublayer; 0.0 for none.
        lower: ends of the intervals, one per count.
        upper: the same.
    """

    __pydantic_config__ = STRICT

    counts: tuple[int, ...]
    milliseconds: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        if len({len(self.counts), len(self.milliseconds), len(self.lower), len(self.upper)}) != 1:
            message = "expected as many milliseconds and interval ends as counts"
            raise ValueError(message)
        if self.counts[:1] != (0,) or any(one >= other for one, other in pairwise(self.counts)):
            message = f"expected ascending counts from 0, got {self.counts}"
            raise ValueError(message)
        if self.milliseconds[0] != 0:
            message = f"expected no cost for no units, got {self.milliseconds[0]}"
            raise ValueError(message)

    @property
    def units(self) -> int:
        """Units of the dense sublayer."""
        return self.counts[-1]


@dataclass(frozen=True)
class Check:
    """A model with unlike layers, measured in the same rounds and not used for the table: what predictions are worth.

    Attributes:
        heads: left in every layer.
        ffn_neurons: left in every layer.
        milliseconds: measured.
        lower: end of its interval.
        upper: the same.
    """

    __pydantic_config__ = STRICT

    heads: tuple[int, ...]
    ffn_neurons: tuple[int, ...]
    milliseconds: Positive
    lower: Positive
    upper: Positive

    @property
    def counts(self) -> list[tuple[UnitKind, int]]:
        """Kind and number of units left, of every sublayer."""
        neurons: list[tuple[UnitKind, int]] = [("ffn_neurons", count) for count in self.ffn_neurons]
        return [*(("heads", count) for count in self.heads), *neurons]


@dataclass(frozen=True)
class LatencyTable:
    """Latency of every pruning of one model in onnxruntime, at one shape, on one machine.

    Attributes:
        workload: batch, length, threads and provider.
        clock: ``"cpu"``, the CPU time of the calling thread (CPU provider, one thread), or ``"wall"``.
        layers: of the model.
        heads: costs of the attention of one layer.
        ffn_neurons: costs of the FFN of one layer.
        dense_ms: the whole dense model, measured.
        fixed_ms: the whole model with every sublayer emptied, measured.
        bend_ms: four times by how much a model in the middle takes longer than the line between those two says.
        check: a model that the rest was not made of.
        control: a second session of the dense model against the first (A/A): what no difference looks like.
        confidence: of the intervals.
    """

    __pydantic_config__ = STRICT

    workload: Workload
    clock: Literal["cpu", "wall"]
    layers: Annotated[int, Field(ge=1)]
    heads: BlockCosts
    ffn_neurons: BlockCosts
    dense_ms: Positive
    fixed_ms: Positive
    bend_ms: float
    check: Check
    control: Positive
    confidence: Annotated[float, Field(gt=0, lt=1)]

    def __post_init__(self) -> None:
        slope = self.dense_ms - self.fixed_ms
        if slope <= abs(self.bend_ms) or self.whole_ms <= 0:
            message = f"expected latencies that grow from empty to dense, got {self.fixed_ms} to {self.dense_ms} ms"
            raise ValueError(message)

    @property
    def whole_ms(self) -> float:
        """What all blocks of the dense model cost, added up."""
        return self.layers * sum(self.block(kind).milliseconds[-1] for kind in KINDS)

    def block(self, kind: UnitKind) -> BlockCosts:
        """Return the measured costs of one kind of sublayer."""
        return self.heads if kind == "heads" else self.ffn_neurons

    def curve(self, kind: UnitKind) -> NDArray[np.float64]:
        """Return the cost in milliseconds of 0, 1, ... all units of one sublayer, shape (units + 1,).

        Between measured counts it is interpolated; nothing is below 0, which would be noise.
        """
        costs = self.block(kind)
        return np.maximum(np.interp(np.arange(costs.units + 1), costs.counts, costs.milliseconds), 0.0)

    def milliseconds(self, kind: UnitKind, count: int) -> float:
        """Return what ``count`` units of one sublayer cost; 0.0 for none.

        Raises:
            CompressorError: no layer of the dense model has as many.
        """
        units = self.block(kind).units
        if not 0 <= count <= units:
            raise CompressorError(f"latency of {count} {kind} in one layer: the table has 0 to {units}")
        costs = self.block(kind)
        return max(0.0, float(np.interp(count, costs.counts, costs.milliseconds)))

    def predict(self, counts: Iterable[tuple[UnitKind, int]]) -> float:
        """Return the latency in milliseconds of a pruned model.

        Args:
            counts: kind and number of units left, of every sublayer; those left out count as emptied.
        """
        return self.at(sum(self.milliseconds(kind, count) for kind, count in counts))

    def at(self, blocks_ms: float) -> float:
        """Return the latency in milliseconds of a model whose blocks cost so much, added up: ``g``."""
        part = blocks_ms / self.whole_ms
        return self.fixed_ms + (self.dense_ms - self.fixed_ms) * part + self.bend_ms * part * (1 - part)

    def spendable(self, milliseconds: float) -> float:
        """Return how much a model's blocks may cost, added up, for a latency of at most so many milliseconds.

        The inverse of ``at``: the budget of a search whose prices are ``curve``. Below 0 where even the model with
        every sublayer emptied takes longer; never more than the whole model's.
        """
        if milliseconds >= self.dense_ms:
            return self.whole_ms
        sum_of_roots, over = self.dense_ms - self.fixed_ms + self.bend_ms, milliseconds - self.fixed_ms
        if over <= 0:
            return over
        # The smaller root of bend x^2 - (dense - fixed + bend) x + over = 0, written so that bend may be 0.
        return self.whole_ms * 2 * over / (sum_of_roots + math.sqrt(sum_of_roots**2 - 4 * self.bend_ms * over))

    def ratio(self, counts: Iterable[tuple[UnitKind, int]]) -> float:
        """Return the predicted latency as a fraction of the dense model's."""
        return self.predict(counts) / self.dense_ms

    @property
    def lowest_ratio(self) -> float:
        """Latency of the model with every sublayer emptied, as a fraction of the dense model's: nothing goes below."""
        return self.fixed_ms / self.dense_ms

    def to_json(self) -> str:
        """Return the table as JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            InputError: the text is no such table.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InputError(f"not a latency table: {place}: {first['msg']}".replace(": : ", ": ")) from error
