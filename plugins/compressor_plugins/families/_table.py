"""How a family's table becomes the prunable groups of a model. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.model.groups import ParamSlice, PrunableGroup, Reads

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where an architecture keeps its heads and neurons.

    Attributes:
        layers: the list of layers, below the bare encoder.
        attention: the attention block; its name and those below are inside one layer.
        projections: query, key and value; one name three times where their rows stand behind each other in one Linear.
        attention_output: reads the heads.
        ffn_input: makes the neurons.
        ffn_output: reads the neurons.
        head_counters: attributes of the attention block that hold the number of heads.
        size_counters: attributes of the attention block that hold heads times head width.
        ffn_block: the block that holds input and output of the FFN; empty where they hang in the layer itself.
        gated: whether ``ffn_input`` makes two halves, of which one is multiplied by the activation of the other.
        norms: what stands before attention and before the FFN, in pre-LN layers.
        shared: whether query and key project relative positions too.
        position_projections: what else makes a head's scores, of relative positions.
        positions: see ``PrunableGroup``.
        position_keys: see ``PrunableGroup``.
    """

    layers: str
    attention: str
    projections: tuple[str, str, str]
    attention_output: str
    ffn_input: str
    ffn_output: str
    head_counters: tuple[str, ...]
    size_counters: tuple[str, ...]
    ffn_block: str = ""
    gated: bool = False
    norms: tuple[str, str] = ("", "")
    shared: bool = False
    position_projections: tuple[str, ...] = ()
    positions: str = ""
    position_keys: int = 0

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return the groups of the model as it is now, bottom to top, attention before FFN.

        Slices of an emptied sublayer (``units == 0``) are given all the same, though its producers are gone.
        """
        prefix: Any = getattr(model, "base_model_prefix", "")
        root = f"{prefix}." if prefix and hasattr(model, prefix) else ""
        count = len(list(model.get_submodule(root + self.layers).children()))
        width = _head_width(model)
        pairs = ((self._heads(model, root, index, width), self._neurons(model, root, index)) for index in range(count))
        return tuple(group for pair in pairs for group in pair)

    def _heads(self, model: nn.Module, root: str, index: int, width: int) -> PrunableGroup:
        layer = f"{root}{self.layers}.{index}"
        consumer = f"{layer}.{self.attention_output}"
        counters = dict.fromkeys(self.head_counters, 1) | dict.fromkeys(self.size_counters, width)
        units = _in_features(model, consumer) // width
        return PrunableGroup(
            name=f"{self.layers}.{index}.attention",
            kind="heads",
            layer=layer,
            index=index,
            units=units,
            producers=tuple(self._producers(layer, units, width)),
            consumer=ParamSlice(consumer, dim=1, width=width),
            block=f"{layer}.{self.attention}",
            counters=counters,
            norm=self.norms[0] and f"{layer}.{self.norms[0]}",
            positions=self.positions,
            position_keys=self.position_keys,
        )

    def _producers(self, layer: str, units: int, width: int) -> Iterator[ParamSlice]:
        """Yield the slices of query and key, of relative positions, and of the values."""
        query, key, value = self.projections
        both: Reads = "both" if self.shared else "tokens"
        yield ParamSlice(f"{layer}.{query}", dim=0, width=width, reads=both)
        yield ParamSlice(f"{layer}.{key}", dim=0, width=width, offset=units * width * (key == query), reads=both)
        for name in self.position_projections:
            yield ParamSlice(f"{layer}.{name}", dim=0, width=width, reads="positions")
        yield ParamSlice(f"{layer}.{value}", dim=0, width=width, offset=units * width * 2 * (value == query))

    def _neurons(self, model: nn.Module, root: str, index: int) -> PrunableGroup:
        layer = f"{root}{self.layers}.{index}"
        producer, consumer = f"{layer}.{self.ffn_input}", f"{layer}.{self.ffn_output}"
        units = _in_features(model, consumer)
        return PrunableGroup(
            name=f"{self.layers}.{index}.ffn",
            kind="ffn_neurons",
            layer=layer,
            index=index,
            units=units,
            producers=tuple(ParamSlice(producer, dim=0, offset=half * units) for half in range(1 + self.gated)),
            consumer=ParamSlice(consumer, dim=1),
            block=f"{layer}.{self.ffn_block}" if self.ffn_block else producer,
            norm=self.norms[1] and f"{layer}.{self.norms[1]}",
        )


def _head_width(model: nn.Module) -> int:
    """Return the width of one head; the config goes on describing the dense model."""
    config: Any = model.config
    own = getattr(config, "attention_head_size", None)  # DeBERTa's
    return int(own or config.hidden_size // config.num_attention_heads)


def _in_features(model: nn.Module, name: str) -> int:
    module: Any = model.get_submodule(name)
    return int(module.in_features)
