"""MPNet's attention where heads are missing: of the position bias that all layers share it reads that of its own heads."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from compressor.model.groups import PrunableGroup
from compressor.model.shapes import kept_heads

BIAS = "position_bias"
PLACE = list(inspect.signature(MPNetSelfAttention.forward).parameters).index(BIAS) - 1
"""Where transformers passes the bias, ``self`` not counted: 4.57 has one argument more before it than 5."""


class SelectedHeads(MPNetSelfAttention):
    """Attention of some of a dense layer's heads.

    Attributes:
        kept: their numbers in the dense layer.

    Shape:
        As MPNet's: hidden states (B, T, D), position bias (B, dense heads, T, T).
    """

    kept: tuple[int, ...]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Attend under the bias of the heads that are left."""
        if len(args) > PLACE:
            args = (*args[:PLACE], self._own(args[PLACE]), *args[PLACE + 1 :])
        else:
            kwargs[BIAS] = self._own(kwargs.get(BIAS))
        return super().forward(*args, **kwargs)  # type: ignore[no-untyped-call]  # transformers' has no types

    def _own(self, bias: Any) -> Any:
        return None if bias is None else bias[:, list(self.kept)]


def select_heads(model: nn.Module, groups: Sequence[PrunableGroup]) -> None:
    """Make ``SelectedHeads`` of every attention block that has heads, and not all of them.

    Args:
        model: whose config says which heads of the dense model are left.
        groups: of the model.
    """
    config: Any = model.config
    for group in groups:
        if group.kind == "heads" and 0 < group.units < config.num_attention_heads:
            block: Any = model.get_submodule(group.block)
            block.__class__ = SelectedHeads
            block.kept = kept_heads(config, group.index)
