"""How a family's table becomes the prunable groups of a model. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.model.groups import ParamSlice, PrunableGroup

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where an architecture keeps its heads and neurons.

    Attributes:
        layers: the list of layers, below the bare encoder.
        attention: the attention block; its name and those below are inside one layer.
        projections: query, key and value.
        attention_output: reads the heads.
        ffn_input: makes the neurons.
        ffn_output: reads the neurons.
        head_counters: attributes of the attention block that hold the number of heads.
        size_counters: attributes of the attention block that hold heads times head width.
    """

    layers: str
    attention: str
    projections: tuple[str, str, str]
    attention_output: str
    ffn_input: str
    ffn_output: str
    head_counters: tuple[str, ...]
    size_counters: tuple[str, ...]

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
        return PrunableGroup(
            name=f"{self.layers}.{index}.attention",
            kind="heads",
            layer=layer,
            index=index,
            units=_in_features(model, consumer) // width,
            producers=tuple(ParamSlice(f"{layer}.{name}", dim=0, width=width) for name in self.projections),
            consumer=ParamSlice(consumer, dim=1, width=width),
            block=f"{layer}.{self.attention}",
            counters=counters,
        )

    def _neurons(self, model: nn.Module, root: str, index: int) -> PrunableGroup:
        layer = f"{root}{self.layers}.{index}"
        consumer = f"{layer}.{self.ffn_output}"
        return PrunableGroup(
            name=f"{self.layers}.{index}.ffn",
            kind="ffn_neurons",
            layer=layer,
            index=index,
            units=_in_features(model, consumer),
            producers=(ParamSlice(f"{layer}.{self.ffn_input}", dim=0),),
            consumer=ParamSlice(consumer, dim=1),
            block=f"{layer}.{self.ffn_input}",
        )


def _head_width(model: nn.Module) -> int:
    """Return the width of one head; the config goes on describing the dense model."""
    config: Any = model.config
    return int(config.hidden_size // config.num_attention_heads)


def _in_features(model: nn.Module, name: str) -> int:
    module: Any = model.get_submodule(name)
    return int(module.in_features)
