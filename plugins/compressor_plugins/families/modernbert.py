"""ModernBERT's layout: pre-LN, query, key and value in one Linear, gated FFN, rotary positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.plugin import Component, ModelFamily, hookimpl
from compressor_plugins.families._table import Layout

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup

LAYOUT = Layout(
    layers="layers",
    attention="attn",
    projections=("attn.Wqkv", "attn.Wqkv", "attn.Wqkv"),
    attention_output="attn.Wo",
    ffn_input="mlp.Wi",
    ffn_output="mlp.Wo",
    head_counters=("num_heads",),
    size_counters=("all_head_size",),
    ffn_block="mlp",
    gated=True,
    norms=("attn_norm", "mlp_norm"),
    positions="rotary embeddings, and windows in most layers",
)


class ModernBert(ModelFamily):
    """ModernBERT (https://arxiv.org/abs/2412.13663): a neuron is a row in each half of ``Wi``, a head three runs of ``Wqkv``."""

    name: ClassVar[str] = "modernbert"
    model_types: ClassVar[tuple[str, ...]] = ("modernbert",)

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return LAYOUT.groups(model)

    def fixed_layers(self, model: nn.Module) -> Mapping[int, str]:
        """Return the lowest layer, which is unlike the others; in transformers 4 all of them."""
        config: Any = model.config
        if hasattr(config, "layer_types"):
            return {
                0: "the lowest layer alone has no LayerNorm before its attention, and the next one cannot take its place"
            }
        reason = "config.json says in transformers 4 that every third layer sees all tokens; transformers 5 lists them"
        return dict.fromkeys(range(config.num_hidden_layers), reason)

    def after_shrink(self, model: nn.Module) -> None:
        """Say in the config which of the layers that are left see all tokens, and which a window."""
        config: Any = model.config
        if hasattr(config, "layer_types"):
            encoder: Any = getattr(model, "model", model)
            config.layer_types = [layer.attention_type for layer in encoder.layers]


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield ModernBert
