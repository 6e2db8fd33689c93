"""Exported graphs of every unit count from two of them, because an export takes seconds and a profile needs dozens.

Two exports of one model with different unit counts have the same nodes; weights of the smaller one are the leading
slices of the larger one's, or of each of two or three equal parts where projections are fused; sizes written into the
graph are proportional to the count. That is not believed but checked: the larger file, cut to the smaller count, must be
the smaller file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

Sizes = tuple[int, ...]
PARTS = (1, 2, 3)
"""Into how many parts a weight may be cut: one matrix; both halves of a gated FFN; query, key and value."""


class UnlikeGraphsError(Exception):
    """Two exports differ by more than the sizes of their weights: every count needs an export of its own."""


@dataclass(frozen=True)
class GraphTemplate:
    """A graph whose unit count can be chosen.

    Attributes:
        proto: the graph with ``count`` units per sublayer.
        count: units that it has.
        changing: the initialisers that depend on the count, by name, as they are with fewer units.
    """

    proto: onnx.ModelProto
    count: int
    changing: Mapping[str, onnx.TensorProto]

    @classmethod
    def between(cls, larger: onnx.ModelProto, count: int, *, smaller: onnx.ModelProto, reference: int) -> GraphTemplate:
        """Make a template of two exports.

        Args:
            larger: export of the model with ``count`` units in every sublayer of a kind.
            count: of units.
            smaller: export of the same model with its first ``reference`` units.
            reference: fewer than ``count``.

        Raises:
            UnlikeGraphsError: the smaller one is not the larger one with fewer units.
        """
        if [node.SerializeToString() for node in larger.graph.node] != [
            node.SerializeToString() for node in smaller.graph.node
        ]:
            raise UnlikeGraphsError("their nodes differ")
        ours, theirs = (_initializers(model) for model in (larger, smaller))
        if ours.keys() != theirs.keys():
            raise UnlikeGraphsError("their initialisers have different names")
        changing = {
            name: theirs[name]
            for name, tensor in ours.items()
            if tensor.SerializeToString() != theirs[name].SerializeToString()
        }
        template = cls(larger, count, changing)
        if _contents(template.at(reference)) != _contents(smaller):
            raise UnlikeGraphsError("their weights differ by more than a slice")
        return template

    def at(self, count: int) -> onnx.ModelProto:
        """Return the graph with ``count`` units, at least 1 and at most the template's own number.

        Sizes are taken to be proportional to the count; ``between`` has checked that at its reference.

        Raises:
            UnlikeGraphsError: an initialiser has another rank in the two exports.
        """
        result = onnx.ModelProto()
        result.CopyFrom(self.proto)
        for tensor in result.graph.initializer:
            if tensor.name in self.changing:
                tensor.CopyFrom(self._resized(tensor, count))
        return result

    def _resized(self, tensor: onnx.TensorProto, count: int) -> onnx.TensorProto:
        values, fewer = (numpy_helper.to_array(one) for one in (tensor, self.changing[tensor.name]))
        if values.ndim != fewer.ndim:
            raise UnlikeGraphsError(f"initialiser {tensor.name} has another rank")
        if values.shape == fewer.shape:  # sizes written as numbers
            return numpy_helper.from_array(np.where(values == fewer, values, values * count // self.count), tensor.name)
        sizes = [
            one if one == other else one * count // self.count
            for one, other in zip(values.shape, fewer.shape, strict=True)
        ]
        parts = next((one for one in PARTS if np.array_equal(_leading(values, fewer.shape, one), fewer)), 1)
        return numpy_helper.from_array(np.ascontiguousarray(_leading(values, sizes, parts)), tensor.name)


def _leading(values: np.ndarray, sizes: Sequence[int], parts: int) -> np.ndarray:
    """Return an array of the given shape: along every axis that shrinks, the leading slice of each of so many equal parts."""
    for axis, (size, whole) in enumerate(zip(sizes, values.shape, strict=True)):
        if size == whole:
            continue
        if size % parts or whole % parts:
            return values
        index = np.arange(whole).reshape(parts, -1)[:, : size // parts].ravel()
        values = values.take(index, axis=axis)
    return values


def _initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _contents(model: onnx.ModelProto) -> list[tuple[str, Sizes, int, bytes]]:
    return [
        (tensor.name, tuple(tensor.dims), tensor.data_type, numpy_helper.to_array(tensor).tobytes())
        for tensor in model.graph.initializer
    ]
