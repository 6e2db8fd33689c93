"""BERT's layout, shared by RoBERTa, XLM-RoBERTa, CamemBERT, data2vec for text and ELECTRA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
REFUSED: Mapping[str, str] = {
    "albert": "all its layers share one set of weights, so that layers cannot lose different units, and one number says "
    "how often the same block runs; take a BERT or RoBERTa of the same task",
    "mobilebert": "its attention reads queries and keys from a bottleneck and values from the whole stream, and every layer "
    "has several FFNs one after the other; take DistilBERT or MiniLM",
    "squeezebert": "its projections are grouped convolutions, whose groups are no rows and columns of a Linear; take "
    "DistilBERT or MiniLM",
}


class Bert(ModelFamily):
    """BERT (https://arxiv.org/abs/1810.04805), RoBERTa, XLM-RoBERTa, CamemBERT, data2vec-text and ELECTRA: one table."""

    name: ClassVar[str] = "bert"
    model_types: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra")
    refused: ClassVar[Mapping[str, str]] = REFUSED

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return heads and neurons of every layer, as the model is now."""
        return LAYOUT.groups(model)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the family."""
    yield Bert
