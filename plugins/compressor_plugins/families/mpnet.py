"""MPNet's layout: the output projection lives inside the attention block, and all layers share one table of positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin import Component, ModelFamily, hookimpl
from compressor_plugins.families._table import Layout

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup

LAYOUT = Layout(
    layers="encoder.layer",
    attention="attention.attn",
    projections=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attention_output="attention.attn.o",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    head_counters=("num_attention_heads",),
    size_counters=("all_head_size",),
    positions="a bias per head and distance in its scores",
)


class MPNet(ModelFamily):
    """MPNet (https://arxiv.org/abs/2004.09297): one bias per head and distance, shared by all layers.

    That table stays whole; a layer that lost heads takes from it what its own heads have.
    """

    name: ClassVar[str] = "mpnet"
    model_types: ClassVar[tuple[str, ...]] = ("mpnet",)

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return LAYOUT.groups(model)

    def after_shrink(self, model: nn.Module) -> None:
        """Let every layer that lost heads read its own heads' part of the shared biases."""
        from compressor_plugins.families._shared_bias import select_heads

        select_heads(model, self.groups(model))


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield MPNet
