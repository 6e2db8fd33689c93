"""The models that are measured for a latency table, and their files.

Latency does not depend on weights, so random ones of the model's architecture are used, with few word vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from compressor.model import shapes, surgery
from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.surgery import Family
from compressor.progress import track
from compressor.verify.graph_template import GraphTemplate, UnlikeGraphsError

VOCABULARY = 128
WIDTHS = 16
MULTIPLE = 16
"""Matrix kernels work in panels of 16 columns: 497 neurons cost what 512 cost."""

PARTS = (0.25, 0.75)
"""How far up the measured counts the few and the many units of the check are."""

STEPS = 6
"""Whole models whose heads and neurons shrink together, the dense one included."""

Export = Callable[[nn.Module, Path], object]
Left = tuple[tuple[int, ...], tuple[int, ...]]
"""Heads, and neurons, of every layer."""


def ffn_widths(units: int) -> tuple[int, ...]:
    """Return the measured FFN widths: the narrowest, then about ``WIDTHS`` steps up to all, multiples of 16."""
    step = -(-units // (WIDTHS * MULTIPLE)) * MULTIPLE
    return tuple(sorted({min(MULTIPLE, units), *range(step, units, step), units}))


def skeleton(model: nn.Module) -> nn.Module:
    """Return a dense model of the same architecture with random weights and few word vectors, in eval mode.

    Args:
        model: a transformers model; when it is pruned, what counts is the dense model its config describes.
    """
    plain: Any = model
    config = copy.deepcopy(plain.config)
    if hasattr(config, shapes.FIELD):
        delattr(config, shapes.FIELD)
    config.vocab_size = max(VOCABULARY, 1 + (getattr(config, "pad_token_id", None) or 0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)  # not the GPUs' generators, which nobody would restore
        result: nn.Module = type(plain)(config).float().eval()
        for parameter in result.parameters():  # exporters merge equal constants, e.g. biases of zeros
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return result


@dataclass(frozen=True)
class Subject:
    """What is profiled.

    Attributes:
        model: dense, of few words; see ``skeleton``.
        family: its table.
        export: writes a model to a file as a user would have it.
    """

    model: nn.Module
    family: Family
    export: Export

    @property
    def groups(self) -> Sequence[PrunableGroup]:
        """Groups of the dense model."""
        return self.family.groups(self.model)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return 1 + max(group.index for group in self.groups)

    @property
    def units(self) -> tuple[int, int]:
        """Heads and FFN neurons of a layer."""
        heads, neurons = (max(g.units for g in self.groups if g.kind == kind) for kind in ("heads", "ffn_neurons"))
        return heads, neurons

    def write(self, left: Left, path: Path) -> Path:
        """Export the model with the first units of every layer only."""
        keep = {
            group.name: torch.arange(group.units) < left[group.kind != "heads"][group.index] for group in self.groups
        }
        self.export(surgery.shrink(self.model, self.family, Masks(keep)), path)
        return path


@dataclass(frozen=True)
class Points:
    """What is measured.

    Attributes:
        heads: counts, ascending, 0 left out.
        neurons: the same.
        layers: of the model.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    layers: int

    @classmethod
    def of(cls, subject: Subject) -> Points:
        """Return every head count, and a grid of FFN widths."""
        heads, neurons = subject.units
        return cls(tuple(range(1, heads + 1)), ffn_widths(neurons), subject.layers)

    def alike(self, heads: int, neurons: int) -> Left:
        """Return a model whose layers are alike."""
        return (heads,) * self.layers, (neurons,) * self.layers

    @property
    def empty(self) -> Left:
        """Return the model with every sublayer emptied."""
        return self.alike(0, 0)

    @property
    def dense(self) -> Left:
        """Return the dense model."""
        return self.alike(self.heads[-1], self.neurons[-1])

    @property
    def unlike(self) -> Left:
        """Return the model of the check: many heads and few neurons in one layer, the other way in the next."""
        few, many = ([counts[int(part * (len(counts) - 1))] for counts in (self.heads, self.neurons)] for part in PARTS)
        heads = tuple((many if index % 2 == 0 else few)[0] for index in range(self.layers))
        return heads, tuple((few if index % 2 == 0 else many)[1] for index in range(self.layers))

    @property
    def series(self) -> tuple[dict[int, Left], ...]:
        """Return models that differ in one number only, by that number: whole ones, attention only, FFN only.

        Of the whole ones, heads and neurons shrink together.
        """
        units, neurons = self.heads[-1], self.neurons[-1]
        steps = sorted({units * part // STEPS for part in range(1, STEPS + 1)} - {0})
        return (
            {count: self.alike(count, max(1, neurons * count // units)) for count in steps},
            {count: self.alike(count, 0) for count in self.heads},
            {count: self.alike(0, count) for count in self.neurons},
        )


def write_files(subject: Subject, points: Points, place: Path) -> dict[Left, Path]:
    """Write the file of every point; most of them are cut out of a larger one instead of being exported."""
    files = {}
    for number, left in enumerate((points.empty, points.unlike)):
        files[left] = subject.write(left, place / f"whole-{number}.onnx")
    for number, lefts in enumerate(points.series):
        paths = {count: place / f"{number}-{count}.onnx" for count in lefts}
        _write_series(subject, lefts, paths)
        files |= {left: paths[count] for count, left in lefts.items()}
    return files


def _write_series(subject: Subject, lefts: Mapping[int, Left], paths: Mapping[int, Path]) -> None:
    """Write models that differ in one number: two exports and what can be cut out of them, or an export of each."""
    count, reference = max(lefts), sorted(lefts)[(len(lefts) - 1) // 2]
    for one in {count, reference}:
        subject.write(lefts[one], paths[one])
    rest = lefts.keys() - {count, reference}
    larger, smaller = (onnx.load(str(paths[one])) for one in (count, reference))
    try:
        template = GraphTemplate.between(larger, count, smaller=smaller, reference=reference)
        for one in rest:
            onnx.save_model(template.at(one), str(paths[one]))
    except UnlikeGraphsError:
        for one in track(rest, "export"):
            subject.write(lefts[one], paths[one])
