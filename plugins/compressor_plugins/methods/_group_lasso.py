"""Whole blocks of weights shrink on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.model.blocks import Blocks


@torch.no_grad()
def shrink_blocks(weight: Tensor, blocks: Blocks, rate: float) -> None:
    """Shrink every block, in place, by the proximal step of the group lasso: w *= max(0, 1 - rate / ||w||).

    The norm is of the block's weights; neural-compressor's release takes that of its gradient.

    Args:
        weight: shape (out, in).
        blocks: how it is cut.
        rate: learning rate times coefficient.
    """
    cut = blocks.view(weight)
    norms = cut.norm(dim=1, keepdim=True).clamp_min(torch.finfo(cut.dtype).tiny)
    weight.copy_(blocks.unview(cut * (1 - rate / norms).clamp_min(0.0), tuple(weight.shape)))
