"""DistilBERT's layout: the output projection lives inside the attention block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.plugin import Component, ModelFamily, hookimpl
from compressor_plugins.families._table import Layout

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup

LAYOUT = Layout(
    layers="transformer.layer",
    attention="attention",
    projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_output="attention.out_lin",
    ffn_input="ffn.lin1",
    ffn_output="ffn.lin2",
    head_counters=("n_heads",),
    size_counters=("dim",),
)


class DistilBert(ModelFamily):
    """DistilBERT (https://arxiv.org/abs/1910.01108)."""

    name: ClassVar[str] = "distilbert"
    model_types: ClassVar[tuple[str, ...]] = ("distilbert",)

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return LAYOUT.groups(model)

    def after_shrink(self, model: nn.Module) -> None:
        """Tell the encoder how many layers it has."""
        encoders: Iterable[Any] = model.modules()
        for module in encoders:
            if hasattr(module, "n_layers") and hasattr(module, "layer"):
                module.n_layers = len(module.layer)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield DistilBert
