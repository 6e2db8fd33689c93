"""A model repository of Triton Inference Server, from the file that a finished run recommends. No torch.

The layout is Triton's: ``<repository>/<name>/config.pbtxt`` and ``<name>/1/model.onnx``; directories that are not numbers,
such as ``tokenizer`` here, are the client's and ignored by the server. The configuration is text of the protobuf message
``ModelConfig``; its parameters are those that the backend ``onnxruntime`` reads.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.model.artifact import read_onnx
from compressor.model.companions import TOKENIZER_FILES
from compressor.model.files import write_text
from compressor.model.served import PORTABLE, served_config

if TYPE_CHECKING:
    import onnx

CONFIG, VERSION, TOKENIZER = "config.pbtxt", "1", "tokenizer"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TYPES: Mapping[str, str] = {
    "INT64": "TYPE_INT64",
    "INT32": "TYPE_INT32",
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    "DOUBLE": "TYPE_FP64",
}
"""Triton's names of element types, by ONNX's."""
READ = frozenset({"session.use_device_allocator_for_initializers"})
"""Entries of onnxruntime's session options that Triton's backend passes on; others it cannot be told."""


@dataclass(frozen=True)
class Serving:
    """How Triton is to serve a model.

    Attributes:
        name: of the model, and of its directory.
        max_batch_size: most samples that the server puts into one call.
        threads: intra-op threads of a call; 0 = onnxruntime's own choice.
        instances: how many calls run side by side.
    """

    name: str
    max_batch_size: int = 32
    threads: int = 0
    instances: int = 1


def write_repository(directory: Path, repository: Path, serving: Serving) -> list[str]:
    """Write the model of a finished run into a model repository, which may hold other models.

    Args:
        directory: of a finished run, or a copy of its files; ``ort_config.json`` says which file, else it is ``model.onnx``.
        repository: made where it is missing.
        serving: name and amounts.

    Returns:
        What Triton cannot do as it was measured: sentences, which are in the configuration too.

    Raises:
        InputError: there is no such file, the repository has a model of this name, or the graph does not suit Triton.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory", hint="name the directory that compress apply wrote")
    served = served_config(directory)
    if served["provider"] == "openvino":
        hint = "verify the run with another provider; Triton's own OpenVINO backend is not written for"
        raise InputError(f"{directory}: its files were measured in OpenVINO, not in onnxruntime", hint=hint)
    file = directory / served["file"]
    if not file.is_file():
        hint = "name the directory that compress apply wrote, from a recipe with a step export"
        raise InputError(f"{file}: no such ONNX file", hint=hint)
    place = repository / serving.name
    if not NAME.fullmatch(serving.name):
        raise InputError(
            f"expected a name of letters, digits, '.', '_' and '-', got '{serving.name}'", hint="use --name"
        )
    if place.exists():
        raise InputError(f"{place}: exists already; nothing is overwritten", hint="choose another -o or --name")
    model = read_onnx(file)
    notes = [*_unmet(served), *_batched(model)]
    config = config_text(model, serving, served, notes=notes)
    draft = repository / f".{serving.name}.tmp"
    try:
        _fill(draft, directory, file, config)
        draft.replace(place)
    except OSError as error:
        raise InputError(f"{place}: cannot be written: {error.strerror}", hint="choose another -o") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return notes


def _fill(draft: Path, directory: Path, file: Path, config: str) -> None:
    shutil.rmtree(draft, ignore_errors=True)  # of a killed process
    (draft / VERSION).mkdir(parents=True)
    (draft / TOKENIZER).mkdir()
    shutil.copyfile(file, draft / VERSION / PORTABLE)
    for name in TOKENIZER_FILES:
        if (directory / name).is_file():
            shutil.copyfile(directory / name, draft / TOKENIZER / name)
    write_text(draft / CONFIG, config)


def _unmet(served: Mapping[str, Any]) -> list[str]:
    """Say which of the recommended session options the backend does not take, and what was measured of them."""
    entries = [f"{key}={value}" for key, value in served["session_config"].items() if key not in READ]
    if not entries:
        return []
    measured = [str(reason) for reason in served.get("why") or () if "takes" in str(reason)]
    return [f"Triton's onnxruntime backend has no parameter for the session option {', '.join(entries)}", *measured]


def _batched(model: onnx.ModelProto) -> Iterator[str]:
    """Say what a batch of several requests changes."""
    if any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node):
        yield "activations are quantised by their range in a whole call: an answer varies a little with what is batched with it"


def config_text(
    model: onnx.ModelProto, serving: Serving, served: Mapping[str, Any], *, notes: Iterable[str] = ()
) -> str:
    """Return ``config.pbtxt`` of an ONNX model whose first dimension is the batch.

    Args:
        model: the graph that inputs and outputs are read from.
        serving: name and amounts.
        served: as in ``ort_config.json``.
        notes: sentences that become comments.

    Raises:
        InputError: a tensor has a type that Triton has no name for here, or no free batch dimension.
    """
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise InputError(f"{served['file']}: expected one file, its weights are in others")
    comments = [
        f"Written by compress export --target triton; 1/{PORTABLE} is {served['file']} of the run.",
        "Requests are put into one batch where their lengths are equal: clients should pad to a few lengths.",
        *(f"{note}." for note in notes),
    ]
    gpu = served["provider"] != "cpu"
    lines = [
        *(f"# {' '.join(comment.split())}" for comment in comments),
        f"name: {_quoted(serving.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {serving.max_batch_size}",
        *_tensors("input", model.graph.input),
        *_tensors("output", model.graph.output),
        "dynamic_batching { }",
        f"instance_group [ {{ count: {serving.instances} kind: {'KIND_GPU' if gpu else 'KIND_CPU'} }} ]",
        *_accelerator(served["provider"]),
        *(_parameter(key, value) for key, value in _parameters(serving, served).items()),
    ]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, values: Iterable[onnx.ValueInfoProto]) -> Iterator[str]:
    blocks = [
        f"  {{ name: {_quoted(value.name)} data_type: {_type(value)} dims: [ {', '.join(map(str, _dims(value)))} ] }}"
        for value in values
    ]
    yield f"{kind} ["
    yield ",\n".join(blocks)
    yield "]"


def _type(value: onnx.ValueInfoProto) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if name not in TYPES:
        raise InputError(f"{value.name}: expected one of {', '.join(TYPES)}, got {name}")
    return TYPES[name]


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Return the dimensions behind the batch, -1 where they are free."""
    shape = value.type.tensor_type.shape.dim
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in shape]
    if len(dims) < 2 or dims[0] != -1:  # noqa: PLR2004 - the batch and one more
        raise InputError(f"{value.name}: expected a free batch dimension and one more behind it, got {dims}")
    return dims[1:]


def _parameters(serving: Serving, served: Mapping[str, Any]) -> dict[str, str]:
    """Return the session options that the backend reads: those of the measurement, and the threads."""
    known = {key: str(value) for key, value in served["session_config"].items() if key in READ}
    return {
        "intra_op_thread_count": str(serving.threads),
        "inter_op_thread_count": "1",
        "execution_mode": "0",
        **known,
    }


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"


def _accelerator(provider: str) -> Iterator[str]:
    if provider == "tensorrt":
        yield 'optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" } ] } }'


def _quoted(words: str) -> str:
    return json.dumps(words)
