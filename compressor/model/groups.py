"""What must be removed together: slices of Linear layers, as data. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

UnitKind = Literal["heads", "ffn_neurons"]


@dataclass(frozen=True)
class ParamSlice:
    """A run of rows (``dim=0``) or columns (``dim=1``) of one ``nn.Linear`` for every unit of a group.

    Unit ``u`` owns the indices ``offset + u * width`` up to ``offset + (u + 1) * width``. The offset is for fused
    projections such as ``Wqkv``, where several slices share one module.
    """

    module: str
    dim: Literal[0, 1]
    width: int = 1
    offset: int = 0


@dataclass(frozen=True)
class PrunableGroup:
    """The attention heads or the FFN neurons of one sublayer.

    A unit's output is what the ``consumer`` reads, so masking the consumer's input equals removing the unit.

    Attributes:
        name: unique and stable, for instance ``encoder.layer.0.attention``; masks and scores are keyed by it.
        kind: ``"heads"`` or ``"ffn_neurons"``.
        layer: dotted name of the transformer layer that holds the sublayer.
        index: number of that layer, from 0 at the bottom.
        units: how many units the model has now (a pruned model has fewer than its config says; 0 when emptied).
        producers: rows that make a unit (query, key, value; or the first FFN matrix). The input of the first
            producer is the sublayer's residual input (true for every post-LN family).
        consumer: columns that read a unit (the attention output projection; the second FFN matrix).
        block: the module to replace when no unit is left. For heads it computes attention and either holds the
            consumer (DistilBERT) or feeds it (BERT); for neurons it is the producer itself.
        counters: attributes of ``block`` that hold a size, as multiples of the unit count
            (``{"num_attention_heads": 1, "all_head_size": 64}``); set only where the module has them.
    """

    name: str
    kind: UnitKind
    layer: str
    index: int
    units: int
    producers: tuple[ParamSlice, ...]
    consumer: ParamSlice
    block: str
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def inner_consumer(self) -> str:
        """Name of the consumer inside the block; empty where the block feeds it from outside."""
        inside = self.consumer.module.startswith(f"{self.block}.")
        return self.consumer.module.removeprefix(f"{self.block}.") if inside else ""

    @property
    def width(self) -> int:
        """Columns of the consumer that one unit owns: the head width, or 1 for a neuron."""
        return self.consumer.width
