"""Attention as one operator of onnxruntime per layer: the modules that stand in for it while a model is traced.

``com.microsoft::Attention`` multiplies by query, key and value at once, and each layer says how many heads it has. Only
onnxruntime knows it: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model.groups import PrunableGroup
from compressor.model.outputs import attention_input
from compressor.plugin import ModelFamily
from compressor_plugins.exporters._signature import Signature
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

ATTENTION = "com.microsoft::Attention"
PLAIN_FAMILIES: tuple[type[ModelFamily], ...] = (Bert, DistilBert)
"""Families whose attention is softmax(Q K' / sqrt(head width)) V under a mask of the padding, and nothing else."""


@dataclass(frozen=True)
class AttentionShape:
    """What an attention operator must know of its layer.

    Attributes:
        num_heads: live heads.
        qkv_hidden_sizes: live columns of query, key and value: heads times the width of one, whatever is left.
    """

    num_heads: int
    qkv_hidden_sizes: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.num_heads} ({'/'.join(map(str, self.qkv_hidden_sizes))})"


class PaddingMask:
    """The mask of the call that is being traced, shape (B, T) int32; None where the model is given none.

    Attention blocks read it here: what transformers hands down to them has another form in every family and version.
    """

    tensor: Tensor | None = None


class FusedAttention(nn.Module):
    """An attention block as one operator; what follows inside the block (DistilBERT's output projection) stays.

    Shape:
        Input: (B, T, hidden_size). Output: (B, T, heads * width), or what the inner projection makes of it, and None in
        place of attention probabilities.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, block: nn.Module, group: PrunableGroup, mask: PaddingMask) -> None:
        super().__init__()
        names = (piece.module.removeprefix(f"{group.block}.") for piece in group.producers)
        linears: list[Any] = [block.get_submodule(name) for name in names]
        sizes = tuple(linear.out_features for linear in linears)
        self.shape = AttentionShape(sizes[0] // group.width, sizes)
        self.mask = mask
        biases = [
            linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias for linear in linears
        ]
        self.register_buffer("weight", torch.cat([linear.weight for linear in linears]).detach().T.contiguous())
        self.register_buffer("bias", torch.cat(biases).detach())
        self.projection = group.inner_consumer
        if self.projection:
            self.add_module(self.projection, block.get_submodule(self.projection))

    def forward(
        self, hidden_states: Tensor | None = None, *_: Any, query: Tensor | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        """Return what the heads give for the hidden states (4.57's DistilBERT says ``query``); only for tracing."""
        hidden = attention_input(hidden_states, query)
        inputs = (hidden, self.weight, self.bias)
        context = torch.onnx.ops.symbolic(
            ATTENTION,
            inputs if self.mask.tensor is None else (*inputs, self.mask.tensor),
            {
                "num_heads": self.shape.num_heads,
                "qkv_hidden_sizes": list(self.shape.qkv_hidden_sizes),
                "mask_filter_value": torch.finfo(torch.float32).min,  # as in transformers; the default is -10000
            },
            dtype=hidden.dtype,
            shape=(*hidden.shape[:-1], self.shape.qkv_hidden_sizes[-1]),
            version=1,
        )
        return (self.get_submodule(self.projection)(context) if self.projection else context), None


class FusedSignature(Signature):
    """A copy of an encoder with fused attention: to be traced, not to be run. Weights are shared, modules are not."""

    def __init__(self, net: Signature) -> None:
        model = copy.deepcopy(net.model, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})
        mask = PaddingMask()
        for group in _live_groups(net.model):
            model.set_submodule(group.block, FusedAttention(model.get_submodule(group.block), group, mask))
        super().__init__(model, net.input_names, net.taken, net.pooling)
        self.mask = mask

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.input_names, inputs, strict=True)).get("attention_mask")
        self.mask.tensor = None if given is None else given.to(torch.int32)
        try:
            return super().forward(*inputs)
        finally:
            self.mask.tensor = None


def family_of(model: nn.Module) -> ModelFamily | None:
    """Return the table of a model whose attention one operator can be; None where it does more, or is not known."""
    config: Any = model.config
    relative = getattr(config, "position_embedding_type", "absolute") != "absolute"
    if relative or getattr(config, "is_decoder", False):
        return None
    return next((family() for family in PLAIN_FAMILIES if config.model_type in family.model_types), None)


def live_attention(model: nn.Module) -> tuple[AttentionShape, ...]:
    """Return heads and sizes of the layers that have any, bottom to top, by what reads them."""
    return tuple(AttentionShape(group.units, (group.units * group.width,) * 3) for group in _live_groups(model))


def check_attention(proto: onnx.ModelProto, expected: Sequence[AttentionShape]) -> None:
    """Compare the attention operators of a graph, in its order, with the model's layers.

    Raises:
        CompressorError: their number, or the heads or sizes of one, are others.
    """
    nodes = [node for node in proto.graph.node if f"{node.domain}::{node.op_type}" == ATTENTION]
    attributes = [{entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute} for node in nodes]
    found = tuple(AttentionShape(each["num_heads"], tuple(each["qkv_hidden_sizes"])) for each in attributes)
    if found != tuple(expected):
        in_file, in_model = (", ".join(map(str, shapes)) or "none" for shapes in (found, expected))
        raise CompressorError(
            f"the fused file has heads (and widths of query, key, value) {in_file}; the model has {in_model}",
            hint="report this; until it is mended, the exporter's option fused: false leaves that file out",
        )


def _live_groups(model: nn.Module) -> list[PrunableGroup]:
    family = family_of(model)
    if family is None:
        raise CompressorError(f"{type(model).__name__}: its attention cannot be fused into one operator")
    return [group for group in family.groups(model) if group.kind == "heads" and group.units]
