"""DeBERTa-v2's and v3's layout: BERT's, and what projects relative positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.plugin import Component, ModelFamily, hookimpl
from compressor_plugins.families._table import Layout

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup

LAYOUT = Layout(
    layers="encoder.layer",
    attention="attention.self",
    projections=("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    attention_output="attention.output.dense",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    head_counters=("num_attention_heads",),
    size_counters=("all_head_size",),
)
TERMS: Mapping[str, str] = {"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"}
"""Terms of the scores, and what projects their relative positions where query and key do not do that too."""


class DebertaV2(ModelFamily):
    """DeBERTa-v2 and v3 (https://arxiv.org/abs/2111.09543): scores of a head are of contents and relative positions.

    The embeddings of relative positions are shared by all layers and stay whole; a head takes its rows of their
    projections with it.
    """

    name: ClassVar[str] = "deberta-v2"
    model_types: ClassVar[tuple[str, ...]] = ("deberta-v2",)
    refused: ClassVar[Mapping[str, str]] = {
        "deberta": "the first DeBERTa keeps the biases of queries and values outside of its Linear layers (q_bias, v_bias), "
        "where no table can name them; take DeBERTa-v3 (deberta-v2 in its config.json), which is better in any case"
    }

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return _layout(model.config).groups(model)

    def fixed_layers(self, model: nn.Module) -> Mapping[int, str]:
        """Return the lowest layer where a convolution follows it, as in DeBERTa-v2-xlarge."""
        config: Any = model.config
        if not getattr(config, "conv_kernel_size", 0):
            return {}
        return {0: "a convolution reads the embeddings and what the lowest layer makes of them"}


def _layout(config: Any) -> Layout:
    """Return the table of a model: which projections there are depends on its config."""
    if not config.relative_attention:
        return LAYOUT
    terms = [name for name in TERMS if name in (config.pos_att_type or ())]
    longest = config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings
    span = config.position_buckets if getattr(config, "position_buckets", -1) > 0 else longest
    shared = getattr(config, "share_att_key", False)
    return replace(
        LAYOUT,
        shared=shared,
        position_projections=() if shared else tuple(TERMS[name] for name in terms),
        positions="relative positions in its scores (disentangled attention)",
        position_keys=2 * span * len(terms),
    )


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield DebertaV2
