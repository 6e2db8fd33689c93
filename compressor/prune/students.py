"""Pruned students that follow a teacher up an encoder, corrected sublayer by sublayer.

Each sublayer of a student runs once: what its consumer read is stored, and given back while what is behind it is looked
at. What is kept of a layer rests on a ``Shelf``; memory holds one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.emptied import EmptyAttention
from compressor.model.groups import PrunableGroup
from compressor.prune.fitting import Evidence, SublayerFit, best_correction, corrected_inputs
from compressor.prune.layerwise import replay, stopped, watched
from compressor.prune.solve import Correction
from compressor.prune.teacher import Teacher, Visit


class Student:
    """A pruned copy of the teacher, its units really gone.

    Args:
        teacher: at the lowest layer.
        model: the pruned copy, corrected in place.
        name: its own on the shelf.
        undo_drift: whether the inputs of a sublayer are mapped back to the teacher's before the sublayer is corrected.

    Attributes:
        fits: what became of each sublayer.
        drifts: what became of each sublayer's inputs.
    """

    def __init__(self, teacher: Teacher, model: nn.Module, *, name: str, undo_drift: bool = True) -> None:
        self.teacher, self.model, self.name, self.undo_drift = teacher, model, name, undo_drift
        self.fits: list[SublayerFit] = []
        self.drifts: list[SublayerFit] = []

    @torch.no_grad()
    def climb(self, layer: str) -> None:
        """Correct the sublayers of a layer that the teacher has just passed, from bottom to top, and pass it too."""
        now = {group.name: group for group in self.teacher.family.groups(self.model)}
        below: list[PrunableGroup] = []
        for whole in self.teacher.own(layer):
            group = now[whole.name]
            shared = any(piece.reads == "both" for piece in group.producers)  # their positions must stay as they are
            if self.undo_drift and group.units and not shared and not self._at_the_bottom(group):
                self._correct_inputs(group, below)
            self._correct_outputs(group, below)
            below.append(group)
        for visit in self.teacher.visits():
            with self._resumed(below, visit):
                hidden = replay(self.model, layer, visit.calls[layer], self._hidden(layer, visit))
            self.teacher.shelf.put(self.name, visit.number, hidden)

    def _hidden(self, layer: str, visit: Visit) -> Tensor:
        return self.teacher.shelf.get("bottom" if layer == self.teacher.layers[0] else self.name, visit.number)

    def _at_the_bottom(self, group: PrunableGroup) -> bool:
        return group.layer == self.teacher.layers[0] and group.name == self.teacher.own(group.layer)[0].name

    @contextmanager
    def _resumed(self, below: list[PrunableGroup], visit: Visit) -> Iterator[None]:
        """Give back what the consumers of a layer read when they were corrected, inside a ``with`` block."""
        with ExitStack() as stack:
            for group in below:
                if group.units:
                    activations = self.teacher.shelf.get(f"{self.name}-{group.kind}", visit.number)
                    stack.enter_context(remembered(self.model, group, activations))
            yield

    def _correct_inputs(self, group: PrunableGroup, below: list[PrunableGroup]) -> None:
        """Map what a sublayer reads back to what the teacher's reads, by a linear map folded into its producers."""
        names = dict.fromkeys(piece.module for piece in group.producers if piece.reads == "tokens")
        producers: list[Any] = [self.model.get_submodule(name) for name in names]
        first, size = producers[0], producers[0].in_features
        biased = all(producer.bias is not None for producer in producers)
        evidence = Evidence.empty(size, size, self.teacher.shelf.device, intercept=biased)
        with watched(self.model, [group]) as seen:
            for visit in self.teacher.visits():
                with self._resumed(below, visit), stopped(first, before=True):
                    replay(self.model, group.layer, visit.calls[group.layer], self._hidden(group.layer, visit))
                read = seen[group.name].read
                missed = self.teacher.state("read", group, visit.number) - read
                evidence.add(read, missed, weights=visit.batch["attention_mask"], held=visit.held)
        correction, fit = corrected_inputs(group, evidence)
        self.drifts.append(fit)
        if correction is not None:
            for producer in producers:
                _fold(producer, correction)

    def _correct_outputs(self, group: PrunableGroup, below: list[PrunableGroup]) -> None:
        """Re-fit what a sublayer's consumer makes of its inputs to what the teacher's sublayer gives."""
        consumer: Any = self.model.get_submodule(group.consumer.module)
        columns = group.units * group.width
        biased = consumer.bias is not None
        evidence = Evidence.empty(columns, consumer.out_features, self.teacher.shelf.device, intercept=biased)
        with watched(self.model, [group]) as seen:
            for visit in self.teacher.visits():
                with self._resumed(below, visit), stopped(consumer):
                    replay(self.model, group.layer, visit.calls[group.layer], self._hidden(group.layer, visit))
                passed = seen[group.name]
                if group.units:
                    self.teacher.shelf.put(f"{self.name}-{group.kind}", visit.number, passed.activations)
                errors = self.teacher.state("wanted", group, visit.number) - passed.before_norm
                weights = self.teacher.token_weights(visit.batch, group)
                evidence.add(passed.activations[..., :columns], errors, weights=weights, held=visit.held)
        weight = consumer.weight if columns else torch.zeros(consumer.out_features, 0)
        correction, fit = best_correction(group, "weights", weight, evidence, whole=True)
        self.fits.append(fit)
        if correction is None:
            return
        if columns:
            consumer.weight.copy_(consumer.weight.double() + correction.weight)
        if consumer.bias is not None:
            consumer.bias.copy_(consumer.bias.double() + correction.bias)


def _fold(producer: Any, correction: Correction) -> None:
    """Let a Linear read ``x + dW x + db`` where it read x."""
    weight = producer.weight.double()
    if producer.bias is not None:
        producer.bias.copy_(producer.bias.double() + weight @ correction.bias)
    producer.weight.copy_(weight + weight @ correction.weight)


class _Remembered(EmptyAttention):
    """Stands in for an attention block that was run before.

    Shape:
        Input: anything. Output: what the block gave, and None in place of attention probabilities.
    """

    def __init__(self, activations: Tensor, projection: str = "", consumer: Any = None) -> None:
        super().__init__(projection, consumer)
        self.activations = activations

    def forward(self, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return super().forward(self.activations)


@contextmanager
def remembered(model: nn.Module, group: PrunableGroup, activations: Tensor) -> Iterator[None]:
    """Let a group's consumer read what is given, inside a ``with`` block; what gave it before is not computed.

    Args:
        model: any model the group describes.
        group: with units.
        activations: what the consumer read, shape (B, T, units * width).
    """
    consumer: Any = model.get_submodule(group.consumer.module)
    if group.kind == "heads":
        inner = group.inner_consumer
        replaced: dict[str, nn.Module] = {group.block: _Remembered(activations, inner, consumer if inner else None)}
    else:
        replaced = {piece.module: nn.Identity() for piece in group.producers}
    originals = {name: model.get_submodule(name) for name in replaced}
    try:
        with consumer.register_forward_pre_hook(lambda _, __: (activations,)):
            for name, module in replaced.items():
                model.set_submodule(name, module)
            yield
    finally:
        for name, module in originals.items():
            model.set_submodule(name, module)
