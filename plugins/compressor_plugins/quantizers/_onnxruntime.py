"""onnxruntime's quantizers, called so that nothing but their numbers gets into the file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from compressor.errors import CompressorError

KEEPS_RANGES = "calibration_cache_path" in signature(quantize_static).parameters
"""Whether onnxruntime writes the ranges of activations to a file, and reads them from there; earlier ones calibrate anew."""
Batches = Callable[[], Iterator[Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class Recipe:
    """How to quantise: the options of the declaration.

    Attributes:
        static: activations are quantised by the ranges that the calibration rows span; else while the model runs.
    """

    embeddings: bool
    per_channel: bool
    reduce_range: bool
    max_drop: float | None
    samples: int
    static: bool


@dataclass(frozen=True)
class Calibration:
    """What activations of a file span, whatever part of it is quantised.

    Attributes:
        batches: gives the calibration batches anew.
        ranges: where they are kept: written by the first call, read by the next ones, which run no batch.
    """

    batches: Batches
    ranges: Path


def quantize_file(
    source: Path, path: Path, recipe: Recipe, calibration: Calibration, *, excluded: Collection[str] = ()
) -> None:
    """Write a file in which all layers but some are quantised.

    Args:
        source: the float32 file.
        path: of the new one.
        recipe: how.
        calibration: of ``source``; a dynamic file needs none.
        excluded: names of the products that stay float32.

    Raises:
        CompressorError: onnxruntime cannot quantise the file.
    """
    common: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul", "Gemm", *(["Gather"] if recipe.embeddings else [])],
        "per_channel": recipe.per_channel,
        "reduce_range": recipe.reduce_range,
        "weight_type": QuantType.QInt8,  # of two unsigned operands the CPU's kernel is half as fast
        "extra_options": {"DefaultTensorType": TensorProto.FLOAT},
    }
    try:
        with _silence():
            if not recipe.static:
                quantize_dynamic(str(source), str(path), nodes_to_exclude=_names(excluded), **common)
            else:
                quantize_static(
                    str(source),
                    str(path),
                    _Reader(calibration.batches()),
                    quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8,
                    nodes_to_exclude=list(excluded),
                    **({"calibration_cache_path": calibration.ranges} if KEEPS_RANGES else {}),
                    **common,
                )
    except (RuntimeError, ValueError) as error:
        raise CompressorError(f"onnxruntime cannot quantise {source.name}: {error}") from error
    _strip(path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration batches as onnxruntime asks for them."""

    def __init__(self, batches: Iterator[Mapping[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _names(excluded: Collection[str]) -> list[str]:
    """Return the names by which the dynamic quantizer knows layers: it renames every Gemm before it looks who is excluded."""
    return [name for layer in excluded for name in (layer, f"{layer}_MatMul")]


def _strip(path: Path) -> None:
    """Drop what names the machine or the moment."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""
    onnx.save_model(model, str(path))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's advice, on the root logger, from the user: what it advises is done already.

    ``logging.warning`` would also give a root logger without handlers one that prints, for good.
    """
    disabled, mute = logging.root.manager.disable, logging.NullHandler()
    logging.root.addHandler(mute)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(mute)
