"""BERT's layout, shared by RoBERTa, XLM-RoBERTa and ELECTRA."""

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
    attention="attention.self",
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    head_counters=("num_attention_heads",),
    size_counters=("all_head_size",),
)


class Bert(ModelFamily):
    """BERT (https://arxiv.org/abs/1810.04805), RoBERTa, XLM-RoBERTa and ELECTRA: one table serves them."""

    name: ClassVar[str] = "bert"
    model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "electra")

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return LAYOUT.groups(model)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield Bert
