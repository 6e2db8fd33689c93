"""OpenVINO as another runtime of the same ONNX files, behind the few methods of an onnxruntime session that are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import InputError, SetupError

PROVIDER = "OpenVINO"
TYPES = {"i64": "tensor(int64)", "i32": "tensor(int32)", "f32": "tensor(float)"}


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        SetupError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise SetupError(
            f"OpenVINO cannot be imported: {error}",
            hint="pip install 'compressor-onnx[openvino]', or ask for provider cpu",
        ) from error
    return openvino


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, as onnxruntime's ``NodeArg`` has it: free dimensions are None."""

    name: str
    type: str
    shape: Sequence[int | None]


class OpenvinoSession:
    """A file compiled for the CPU, in float32 where it is not quantised: half precision is OpenVINO's default on some.

    Args:
        path: of the ONNX file.
        threads: inference threads; 0 = OpenVINO's own choice.

    Raises:
        SetupError: OpenVINO is not installed.
        InputError: it cannot load the file.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        runtime = import_openvino()
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = runtime.Core().compile_model(str(path), "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeErrors and classes of its own
            raise InputError(f"{path}: OpenVINO cannot load this file: {error}") from error
        self._inputs, self._outputs = ([_port(one) for one in ports] for ports in (compiled.inputs, compiled.outputs))
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[Port]:
        """Return the graph's inputs."""
        return self._inputs

    def get_outputs(self) -> list[Port]:
        """Return the graph's outputs."""
        return self._outputs

    def get_providers(self) -> list[str]:
        """Return what runs the file."""
        return [PROVIDER]

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the file and return copies of its outputs: all of them, or those of these names."""
        self._request.infer(dict(feeds))
        known = [port.name for port in self._outputs]
        return [self._request.get_output_tensor(known.index(name)).data.copy() for name in names or known]


def _port(port: Any) -> Port:
    kind = port.get_element_type().get_type_name()
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return Port(port.get_any_name(), TYPES.get(kind, kind), shape)
