"""What stands in place of sublayers that lost every unit: the bias of what read them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compressor.model.outputs import attention_input


class BiasOnly(nn.Module):
    """What is left of a Linear that lost every input: its bias (a 0-wide Linear breaks ``view(..., -1, head_dim)``).

    Shape:
        Input: (..., anything). Output: (..., out_features).
    """

    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = 0
        self.out_features = linear.out_features
        self.register_parameter("bias", linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the bias for every token; zeros where the Linear had none."""
        shape = (*hidden.shape[:-1], self.out_features)
        return hidden.new_zeros(shape) if self.bias is None else self.bias.expand(shape)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return f"out_features={self.out_features}, bias={self.bias is not None}"


class EmptyAttention(nn.Module):
    """An attention block that lost every head.

    In BERT's layout the output projection follows the block; in DistilBERT's it lives inside, and stays there under its
    own name, so that the key of its bias in the state dict is kept.

    Shape:
        Input: (B, T, hidden_size). Output: the same, and None in place of attention probabilities.
    """

    def __init__(self, projection: str = "", left_over: BiasOnly | None = None) -> None:
        super().__init__()
        self.projection = projection
        if left_over is not None:
            self.add_module(projection, left_over)

    def forward(
        self, hidden_states: Tensor | None = None, *_: Any, query: Tensor | None = None, **__: Any
    ) -> tuple[Tensor, None]:
        """Return the hidden states, through what is left of an inner projection (4.57's DistilBERT says ``query``)."""
        hidden = attention_input(hidden_states, query)
        return (self.get_submodule(self.projection)(hidden) if self.projection else hidden), None


class EmptyFeedForward(nn.Module):
    """A feed-forward block that lost every neuron, where the block holds the output projection (ModernBERT's ``mlp``).

    Shape:
        Input: (B, T, hidden_size). Output: the same: the projection's bias, or zeros.
    """

    def __init__(self, projection: str, left_over: BiasOnly) -> None:
        super().__init__()
        self.projection = projection
        self.add_module(projection, left_over)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return what is left of the inner projection."""
        left: Tensor = self.get_submodule(self.projection)(hidden_states)
        return left
