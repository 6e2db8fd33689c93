"""For tests about everything but exporting and measuring: files that take no time, and verifications that take little."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.model import fingerprint
from compressor.model.artifact import Artifact
from compressor.plugin import Component, Exporter, hookimpl
from compressor.run import verification
from compressor.verify import apart, rounds
from compressor.verify.statistics import Resampling

REMEMBERED = 2**20
"""Bytes of the largest graph that is kept in memory."""


def answer_here(module: str, request: Mapping[str, Any], **_: Any) -> Any:
    """Answer in this process what a fresh one is asked, through JSON all the same."""
    return json.loads(json.dumps(import_module(module).answer(json.loads(json.dumps(request)))))


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Let verifications measure nothing that could be believed."""
    patch.setattr(apart, "ask", answer_here)
    patch.setattr(rounds, "WARM_UP_SECONDS", 0.0)
    patch.setattr(rounds, "MEASUREMENT_SECONDS", 0.0)
    patch.setattr(verification, "measure_memory", lambda *_: {})
    patch.setattr(verification, "Resampling", partial(Resampling, resamples=10))


def remembering(trace: Callable[[Any, int], onnx.ModelProto]) -> Callable[[Any, int], onnx.ModelProto]:
    """Let torch's exporter trace every model once: toy models are exported again and again, their dense ones most of all.

    Whoever writes a graph to a file compares it with the model that it was asked for, remembered or not.
    """
    known: dict[tuple[object, ...], bytes] = {}

    def graph(net: Any, opset: int) -> onnx.ModelProto:
        config = net.model.config
        inside = (repr(net), config.to_json_string(), config._attn_implementation, fingerprint(net.model))
        key = (type(net), net.input_names, net.output_names, net.pooling, opset, *inside)
        if key not in known:
            traced = trace(net, opset)
            if traced.ByteSize() > REMEMBERED:
                return traced
            known[key] = traced.SerializeToString()
        return onnx.ModelProto.FromString(known[key])

    return graph


class Lookup(Exporter):
    """Writes a graph that looks logits up by token and averages them, which depends on all weights of the model."""

    name = "lookup"
    opset: int = 20

    def export(
        self, model: Any, path: Path, *, input_names: tuple[str, ...], output_names: tuple[str, ...]
    ) -> Artifact:
        """Write the file."""
        width = model.config.num_labels
        total = sum(float(parameter.sum()) for parameter in model.parameters())
        table = model.get_input_embeddings().weight[:, :width].detach().cpu().numpy() + 1e-3 * total
        nodes = [
            helper.make_node("Gather", ["table", input_names[0]], ["rows"]),
            helper.make_node("ReduceMean", ["rows", "axes"], [output_names[0]], keepdims=0),
        ]
        tokens: Any = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in input_names]
        logits = [helper.make_tensor_value_info(output_names[0], TensorProto.FLOAT, ["b", width])]
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
        graph = helper.make_graph(nodes, "lookup", tokens, logits, [numpy_helper.from_array(table, "table"), axes])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        onnx.save_model(proto, str(path))
        return Artifact(path, "onnx", self.opset, input_names, output_names[:1], path.stat().st_size, 0.0)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Yield the exporter."""
    yield Lookup
