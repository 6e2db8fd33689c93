"""From a torch encoder to an ONNX file that is proved equal to it and the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from compressor.errors import CompressorError, InputError
from compressor.model import max_positions
from compressor.model.artifact import Artifact
from compressor_plugins.exporters._canonical import make_canonical
from compressor_plugins.exporters._fused import ATTENTION, FusedSignature, check_attention, live_attention
from compressor_plugins.exporters._parity import parity
from compressor_plugins.exporters._signature import Signature, example_batch

STANDARD = {"", "ai.onnx"}
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
    return _checked(net, _standard_only(_graph(net, opset)), path, format_name="onnx", tolerance=tolerance)


def export_fused(net: Signature, path: Path, *, opset: int, tolerance: float) -> Artifact:
    """Export a model with one attention operator of onnxruntime per layer that has heads, check it, and put it at ``path``.

    Args:
        net: the model with its inputs and outputs, of a family whose attention is known; torch runs it as it is.
        path: the file to write.
        opset: version of the standard operators.
        tolerance: largest absolute difference to torch, in units of the output.

    Raises:
        CompressorError: as of ``export``, or an operator has other heads than its layer.
        InputError: the weights do not fit into one ONNX file.
    """
    proto = _standard_only(_graph(FusedSignature(net), opset), besides={ATTENTION})
    check_attention(proto, live_attention(net.model))
    return _checked(net, proto, path, format_name="onnx-ort", tolerance=tolerance)


def _checked(net: Signature, proto: onnx.ModelProto, path: Path, *, format_name: str, tolerance: float) -> Artifact:
    """Write a graph to ``path``, where it appears only when it reproduces torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unchecked = path.with_name(f"{path.name}.partial")
    try:
        onnx.save_model(proto, str(unchecked))
        difference = parity(net, unchecked, tolerance)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return Artifact(
        path=path,
        format=format_name,
        opset=next(entry.version for entry in proto.opset_import if entry.domain in STANDARD),
        input_names=net.input_names,
        output_names=net.output_names,
        size_bytes=path.stat().st_size,
        max_abs_diff=difference,
    )


def _graph(net: Signature, opset: int) -> onnx.ModelProto:
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))
    if size > LARGEST:
        raise InputError(f"the model has {size / 1e9:.1f} GB of weights; one ONNX file holds at most 2.1 GB")
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


def _standard_only(proto: onnx.ModelProto, *, besides: Collection[str] = ()) -> onnx.ModelProto:
    """Refuse foreign operators; drop whatever depends on the machine or would go stale when weights change.

    Args:
        proto: changed in place and returned.
        besides: foreign operators that may stand in it all the same, each ``domain::operator`` of version 1.
    """
    foreign = {f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain not in STANDARD}
    if proto.functions or foreign - set(besides):
        names = sorted(foreign - set(besides)) or [function.name for function in proto.functions]
        raise CompressorError(f"the exported graph uses other than standard ONNX operators: {', '.join(names)}")
    _strip(proto)
    del proto.graph.value_info[:]  # quantizers that transpose weights stumble over it, and runtimes infer it anyway
    make_canonical(proto.graph)
    standard = next(entry for entry in proto.opset_import if entry.domain in STANDARD).version
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", standard))
    for domain in sorted({name.partition("::")[0] for name in foreign}):
        proto.opset_import.append(onnx.helper.make_opsetid(domain, 1))
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
