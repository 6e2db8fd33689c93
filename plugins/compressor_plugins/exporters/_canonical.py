"""One order and one set of names for a graph, in whatever order torch met its parts.

Torch numbers values in the order in which Python runs the model's code, and some of that code goes over sets of texts: ModernBERT's
over its kinds of layers, in the order of string hashes, which is another one in every process. A walk from the outputs
back along the inputs knows nothing of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import onnx

NUMBERS = re.compile(r"(_\d+)+$")
BRANCHES = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}


def make_canonical(graph: onnx.GraphProto) -> None:
    """Order and number a graph's nodes, values and initialisers as a walk from its outputs meets them.

    Names of inputs, outputs and the model's parameters stay; what no output needs goes. A graph with branches, whose
    bodies read values from outside, is left as torch wrote it.
    """
    if any(attribute.type in BRANCHES for node in graph.node for attribute in node.attribute):
        return
    order = _walk(graph)
    stay = [put.name for puts in (graph.input, graph.output) for put in puts]
    # With a dot it is a path in the model: no number of torch's.
    stay += [tensor.name for tensor in graph.initializer if "." in tensor.name]
    values, names = _Names(stay), _Names()
    for number in order:
        node = graph.node[number]
        node.input[:] = [values.of(name) for name in node.input]
        node.output[:] = [values.of(name) for name in node.output]
        node.name = names.of(node.name)
    for number in sorted(set(range(len(graph.node))) - set(order), reverse=True):
        del graph.node[number]
    graph.node.sort(key=lambda node: min(values.place(name) for name in node.output if name))  # a node may have no name
    for tensor in graph.initializer:
        tensor.name = values.of(tensor.name)
    read = {name for node in graph.node for name in node.input} | {put.name for put in graph.output}
    for number in [number for number, tensor in enumerate(graph.initializer) if tensor.name not in read][::-1]:
        del graph.initializer[number]
    graph.initializer.sort(key=lambda tensor: values.place(tensor.name))


def _walk(graph: onnx.GraphProto) -> list[int]:
    """Return the numbers of the nodes that the outputs need, each after those that it reads from, first inputs first."""
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    waiting = [makers[put.name] for put in reversed(graph.output) if put.name in makers]
    while waiting:
        sources = (makers[name] for name in graph.node[waiting[-1]].input if name in makers)
        missing = next((source for source in sources if source not in order), None)
        if missing is None:
            order[waiting.pop()] = None
        else:
            waiting.append(missing)
    return list(order)


class _Names:
    """New names in the order in which they are asked for: the old one with another number."""

    def __init__(self, stay: Iterable[str] = ()) -> None:
        self._given = {"": "", **{name: name for name in stay}}
        self._taken = set(self._given)
        self._places: dict[str, int] = {}
        self._counts = Counter[str]()

    def of(self, name: str) -> str:
        """Return the new name of an old one."""
        if name not in self._given:
            self._given[name] = self._fresh(NUMBERS.sub("", name) or name)
        found = self._given[name]
        self._places.setdefault(found, len(self._places))
        return found

    def place(self, name: str) -> int:
        """Return how many names were asked for before a new one."""
        return self._places[name]

    def _fresh(self, base: str) -> str:
        while True:
            count = self._counts[base]
            self._counts[base] += 1
            found = f"{base}_{count}" if count else base
            if found not in self._taken:
                self._taken.add(found)
                return found
