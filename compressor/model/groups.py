"""What must be removed together: slices of Linear layers, as data. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

UnitKind = Literal["heads", "ffn_neurons"]
Reads = Literal["tokens", "positions", "both"]


@dataclass(frozen=True)
class ParamSlice:
    """A run of rows (``dim=0``) or columns (``dim=1``) of one ``nn.Linear`` for every unit of a group.

    Unit ``u`` owns the indices ``offset + u * width`` up to ``offset + (u + 1) * width``. The offset is for fused
    projections such as ``Wqkv``, where several slices share one module: a unit may own several of it.

    Attributes:
        module: dotted name.
        dim: 0 for rows, 1 for columns.
        width: rows or columns per unit.
        offset: index of the first unit's first.
        reads: what the Linear is applied to: hidden states of tokens, embeddings of relative positions (DeBERTa's
            ``pos_key_proj``), or one after the other (its ``share_att_key``).
    """

    module: str
    dim: Literal[0, 1]
    width: int = 1
    offset: int = 0
    reads: Reads = "tokens"


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
        producers: rows that make a unit: query, key, value, the last of which make what the consumer reads; or those of
            the first FFN matrix, of a gated one in both halves.
        consumer: columns that read a unit (the attention output projection; the second FFN matrix).
        block: the module to replace when no unit is left. For heads it computes attention and either holds the
            consumer (DistilBERT) or feeds it (BERT); for neurons it holds producer and consumer (ModernBERT), or is the
            producer itself.
        counters: attributes of ``block`` that hold a size, as multiples of the unit count
            (``{"num_attention_heads": 1, "all_head_size": 64}``); set only where the module has them.
        norm: the module between residual stream and producers, in pre-LN layers; empty in post-LN ones, whose producers
            read the stream itself.
        positions: how positions enter the attention, e.g. ``"rotary embeddings"``; empty where a head is
            ``softmax(q k' / sqrt(width))`` times its values, under a mask of the padding, and nothing else.
        position_keys: relative positions that every token is multiplied with, in all terms of the scores together.
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
    norm: str = ""
    positions: str = ""
    position_keys: int = 0

    @property
    def inner_consumer(self) -> str:
        """Name of the consumer inside the block; empty where the block feeds it from outside."""
        inside = self.consumer.module.startswith(f"{self.block}.")
        return self.consumer.module.removeprefix(f"{self.block}.") if inside else ""

    @property
    def width(self) -> int:
        """Columns of the consumer that one unit owns: the head width, or 1 for a neuron."""
        return self.consumer.width

    @property
    def reader(self) -> str:
        """Name of the first module that reads the sublayer's input, once per forward and nothing else."""
        return next(piece.module for piece in self.producers if piece.reads == "tokens")
