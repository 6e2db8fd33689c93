"""Count the multiply-accumulates that run on the device at hand, model passes apart from linear algebra.

The unit of the benchmarks is F: one dense forward pass over the calibration rows, padding included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from compressor.prune import fitting, removal, solve, students
from compressor_plugins.methods import _obs

PASSES = ("forward", "backward")
KINDS = (*PASSES, "algebra")


def attention_macs(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Return the MACs of two products over heads: query times keys, probabilities times values."""
    batch, heads, length, width = query.shape
    return int(2 * batch * heads * length * key.shape[2] * width)


def attention_backward_macs(_: Any, query: Any, key: Any, *__: Any, **___: Any) -> int:
    """Return the MACs of five products: the probabilities once more, and the gradients of all four operands."""
    return attention_macs(query, key) // 2 * 5


def cholesky_macs(matrix: Any, **_: Any) -> int:
    """Return the MACs of factorising an n x n matrix: n^3 / 6."""
    return int(matrix.shape[-1] ** 3 // 6)


def cholesky_solve_macs(right: Any, *_: Any, **__: Any) -> int:
    """Return the MACs of two triangular solves: n^2 a column."""
    return int(right.shape[-2] ** 2 * right.shape[-1])


def inverse_macs(matrix: Any, **_: Any) -> int:
    """Return the MACs of inverting n x n matrices: n^3 each."""
    return math.prod(matrix.shape[:-2]) * int(matrix.shape[-1] ** 3)


def solve_macs(matrix: Any, right: Any, **_: Any) -> int:
    """Return the MACs of factorising n x n matrices and solving for k columns: n^3 / 3 + n^2 k each."""
    size = matrix.shape[-1]
    return math.prod(matrix.shape[:-2]) * int(size**3 // 3 + size**2 * right.shape[-1])


def eigen_macs(matrix: Any, *_: Any, **__: Any) -> int:
    """Return the MACs of the eigenvectors of a symmetric n x n matrix by tridiagonal QR: 9/2 n^3."""
    return int(matrix.shape[-1] ** 3 * 9 // 2)


aten = torch.ops.aten
UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_macs,  # noqa: SLF001 - aten's own name
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_macs,  # noqa: SLF001 - the same
    aten.linalg_cholesky_ex: cholesky_macs,
    aten.cholesky_solve: cholesky_solve_macs,
    aten.linalg_inv_ex: inverse_macs,
    aten._linalg_solve_ex: solve_macs,  # noqa: SLF001 - the same
    aten._linalg_eigh: eigen_macs,  # noqa: SLF001 - the same
}
"""torch's table of costs has every attention kernel but the CPU's, and no factorisation."""


class MacCounter(TorchDispatchMode):
    """Counts inside a ``with`` block.

    Attributes:
        macs: by kind: ``forward``, ``backward``, and ``algebra``: Gram matrices, factorisations, solves
            and changes of weights. Products of a matrix with one vector are left out, and so is what numpy does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = dict.fromkeys(KINDS, 0)
        self.in_algebra = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in UNKNOWN_TO_TORCH:
            count = UNKNOWN_TO_TORCH[packet](*args, **(kwargs or {}))
        elif packet in flop_registry:
            count = flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
        else:
            return result
        backward = torch._C._current_autograd_node() is not None  # noqa: SLF001 - the public way to ask is none
        self.macs["algebra" if self.in_algebra else PASSES[backward]] += count
        return result

    def algebraic(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose products count as algebra."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            before, self.in_algebra = self.in_algebra, True
            try:
                return function(*args, **kwargs)
            finally:
                self.in_algebra = before

        return counted


@contextmanager
def counting() -> Iterator[MacCounter]:
    """Count what runs inside a ``with`` block."""
    counter = MacCounter()
    owners = [(solve.Moments, "add"), (solve.Moments, "kept"), (fitting, "residual")]
    owners += [(fitting, name) for name in ("solve_weights", "solve_scales", "solve_bias")]
    owners += [(_obs, "removal_orders"), (removal.Removal, "updated"), (students, "_fold")]
    with ExitStack() as stack:
        for owner, name in owners:
            stack.enter_context(mock.patch.object(owner, name, counter.algebraic(getattr(owner, name))))
        stack.enter_context(counter)
        yield counter
