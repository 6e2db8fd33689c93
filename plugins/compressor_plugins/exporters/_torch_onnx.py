"""From a torch encoder to an ONNX file that is proved equal to it and the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from compressor.errors import CompressorError, InputError
from compressor.model import max_positions
from compressor.model.artifact import Artifact
from compressor.model.runtime import SessionOptions, open_session
from compressor_plugins.exporters._signature import Signature, example_batch

PARITY_SHAPES = ((1, 1), (1, 2), (2, 7), (3, 16), (5, 33), (4, 64), (2, 131))
"""(batch, sequence), cut to what the model's positions allow; rows after the first are padded."""
LARGEST = 2**31 - 2**20
"""Protobuf ends at 2 GiB; some room for the graph itself."""
NOISE = {"metadata_props", "doc_string"}
"""Fields where the exporter leaves stack traces and paths of the machine."""


def export(net: Signature, path: Path, *, opset: int, tolerance: float) -> Artifact:
    """Export a model, check it, and put it at ``path`` by one rename.

    Args:
        net: the model with its inputs and outputs.
        path: the file to write.
        opset: version of the standard operators.
        tolerance: largest absolute difference to torch, in units of the output.

    Raises:
        CompressorError: the exporter fails, uses other than standard operators, or the file differs from torch.
        InputError: the weights do not fit into one ONNX file.
    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    if size > LARGEST:
        raise InputError(f"the model has {size / 1e9:.1f} GB of weights; one ONNX file holds at most 2.1 GB")
    proto = _standard_only(_graph(net, opset))
    path.parent.mkdir(parents=True, exist_ok=True)
    unchecked = path.with_name(f"{path.name}.partial")
    try:
        onnx.save_model(proto, str(unchecked))
        difference = _parity(net, unchecked, tolerance)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return Artifact(
        path=path,
        format="onnx",
        opset=proto.opset_import[0].version,
        input_names=net.input_names,
        output_names=net.output_names,
        size_bytes=path.stat().st_size,
        max_abs_diff=difference,
    )


def _graph(net: Signature, opset: int) -> onnx.ModelProto:
    longest = max_positions(net.model)
    example = tuple(example_batch(net.model, net.input_names, 2, min(8, longest)).values())
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", min=2, max=longest)}  # 1 works all the same
    try:
        with _silence():
            program = torch.onnx.export(
                net,
                example,
                dynamo=True,
                opset_version=opset,
                input_names=list(net.input_names),
                output_names=list(net.output_names),
                dynamic_shapes=((dims,) * len(example),),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise CompressorError(f"torch cannot export {type(net.model).__name__} to ONNX: {error}") from error
    if program is None:
        raise CompressorError("torch.onnx.export returned nothing")
    proto: onnx.ModelProto = program.model_proto
    return proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's prints from stdout, which belongs to ``--json``, and its warnings from the user."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _standard_only(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse foreign operators; drop whatever depends on the machine or would go stale when weights change."""
    foreign = sorted(
        {f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain not in {"", "ai.onnx"}}
    )
    if foreign or proto.functions:
        names = foreign or [function.name for function in proto.functions]
        raise CompressorError(f"the exported graph uses other than standard ONNX operators: {', '.join(names)}")
    _strip(proto)
    del proto.graph.value_info[:]  # quantizers that transpose weights stumble over it, and runtimes infer it anyway
    standard = next(entry for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}).version
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", standard))
    onnx.checker.check_model(proto)
    return proto


def _strip(message: Any) -> None:
    """Clear the noisy fields of a protobuf message and of all messages in it."""
    for field, value in message.ListFields():
        if field.name in NOISE:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                _strip(child)


def _parity(net: Signature, path: Path, tolerance: float) -> float:
    """Compare with onnxruntime's default options too: that is how most people open the file."""
    return max(_difference(net, open_session(path, SessionOptions(slow_fusion=on)), tolerance) for on in (False, True))


def _largest(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.abs(expected - found).max()) if expected.shape == found.shape else math.inf


def _difference(net: Signature, session: Any, tolerance: float) -> float:
    longest = max_positions(net.model)
    differences = {}
    for batch, length in dict.fromkeys((rows, min(columns, longest)) for rows, columns in PARITY_SHAPES):
        inputs = example_batch(net.model, net.input_names, batch, length)
        with torch.no_grad():
            expected = [output.numpy() for output in net(*inputs.values())]
        found = session.run(list(net.output_names), {name: tensor.numpy() for name, tensor in inputs.items()})
        apart = [_largest(*pair) for pair in zip(expected, found, strict=True)]
        differences[batch, length] = math.nan if any(map(math.isnan, apart)) else max(apart)
    worst = max(differences, key=lambda shape: math.inf if math.isnan(differences[shape]) else differences[shape])
    if not differences[worst] <= tolerance:
        raise CompressorError(
            f"the exported file differs from torch by {differences[worst]:.3g} at batch {worst[0]}, "
            f"sequence {worst[1]}; accepted: {tolerance:.3g}",
            hint="raise the exporter's max_abs_diff if outputs are that large, else report this",
        )
    return differences[worst]
