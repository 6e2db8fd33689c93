"""Whether an ONNX file says in onnxruntime what the model says in torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.errors import CompressorError
from compressor.model import at_real_tokens, max_positions
from compressor.model.runtime import SessionOptions, open_session
from compressor_plugins.exporters._signature import Signature, example_batch

ANSWERS = {"start_logits", "end_logits"}
"""Outputs for every token of two dimensions, (B, T)."""
PARITY_SHAPES = ((1, 1), (1, 2), (2, 7), (3, 16), (5, 33), (4, 64), (2, 131))
"""(batch, sequence), cut to what the model's positions allow; rows after the first are padded."""


def parity(net: Signature, path: Path, tolerance: float) -> float:
    """Return the largest difference between a file and torch, with onnxruntime's default options and with ours.

    The defaults count too: that is how most people open the file.

    Raises:
        CompressorError: the difference is larger than ``tolerance``, or not a number.
    """
    return max(_difference(net, open_session(path, SessionOptions(slow_fusion=on)), tolerance) for on in (False, True))


def _largest(name: str, expected: np.ndarray, found: np.ndarray, real: np.ndarray) -> float:
    """Return the largest difference of an output; of one that has values for every token, at real ones."""
    if expected.shape != found.shape:
        return math.inf
    apart = np.abs(expected - found)
    return float((apart[real] if name in ANSWERS else at_real_tokens(apart, real)).max())


def _difference(net: Signature, session: Any, tolerance: float) -> float:
    longest = max_positions(net.model)
    differences = {}
    for batch, length in dict.fromkeys((rows, min(columns, longest)) for rows, columns in PARITY_SHAPES):
        inputs = example_batch(net.model, net.input_names, batch, length)
        with torch.no_grad():
            expected = [output.numpy() for output in net(*inputs.values())]
        found = session.run(list(net.output_names), {name: tensor.numpy() for name, tensor in inputs.items()})
        real = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).numpy() > 0
        outputs = zip(net.output_names, expected, found, strict=True)
        apart = [_largest(*output, real) for output in outputs]
        differences[batch, length] = math.nan if any(map(math.isnan, apart)) else max(apart)
    worst = max(differences, key=lambda shape: math.inf if math.isnan(differences[shape]) else differences[shape])
    if not differences[worst] <= tolerance:
        raise CompressorError(
            f"the exported file differs from torch by {differences[worst]:.3g} at batch {worst[0]}, "
            f"sequence {worst[1]}; accepted: {tolerance:.3g}",
            hint="raise the exporter's max_abs_diff if outputs are that large, else report this",
        )
    return differences[worst]
