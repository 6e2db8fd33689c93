"""What is pruned stays zero: after every optimizer step, whatever momentum and weight decay made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from compressor.errors import CompressorError
from compressor.model.masks import Masks


class Enforced:
    """Element-wise masks of a model in training.

    Attributes:
        model: whose weights are masked.
        masks: by parameter name, each of its parameter's shape; on the parameter's device.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self.model = model
        self.hold(masks)

    def hold(self, masks: Masks) -> None:
        """Take these masks from now on, in the place of the former ones, and zero what they remove.

        Raises:
            CompressorError: a mask belongs to no parameter, or has not its shape.
        """
        parameters = dict(self.model.named_parameters())
        for name, mask in masks.keep.items():
            if name not in parameters or mask.shape != parameters[name].shape:
                found = f"shape {tuple(parameters[name].shape)}" if name in parameters else "no such parameter"
                raise CompressorError(f"mask '{name}' has shape {tuple(mask.shape)}; the model has {found}")
        self.masks = Masks({name: mask.to(parameters[name].device) for name, mask in masks.keep.items()})
        self._weights: list[Tensor] = [parameters[name] for name in masks.keep]
        self._factors: list[Tensor] = [
            mask.to(weight.dtype) for mask, weight in zip(self.masks.keep.values(), self._weights, strict=True)
        ]
        self.zero()

    @torch.no_grad()
    def zero(self) -> None:
        """Zero what is removed, all weights in one call."""
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks by parameter name."""
        return dict(self.masks.keep)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take saved masks."""
        self.hold(Masks(dict(state)))


class Enforcing(TrainerCallback):
    """Zeroes right after the optimizer step, before anybody evaluates or saves.

    Attributes:
        enforced: whose masks.
    """

    def __init__(self, enforced: Enforced) -> None:
        self.enforced = enforced

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Zero what is removed."""
        self.enforced.zero()
