"""The loop of K-prune: measure, search, remove, re-fit; one sublayer after the other, bottom to top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from compressor.model import Masks
from compressor.plugin import Pruned
from compressor.progress import track
from compressor.prune import Evidence, Reconstruction, Sweep, threshold_masks, unpruned, watched
from compressor_plugins.methods._budget import linear_budget, sequence_of
from compressor_plugins.methods._knowledge import Measurement
from compressor_plugins.methods._report import Stopwatch, figures

if TYPE_CHECKING:
    from compressor.model.groups import PrunableGroup, UnitKind
    from compressor.prune.layerwise import Batch
    from compressor.run.session import Session
    from compressor_plugins.methods.kprune import KPrune


def prune(method: KPrune, session: Session) -> Pruned:
    """Run the whole method on a session."""
    climb = _Climb(method, session)
    with climb.watch.phase("knowledge"):
        climb.start()
    for layer in track(climb.sweep.layers, "K-prune"):  # emptied ones too: they still add a bias and normalise
        climb.enter(layer)
        for index, group in enumerate(climb.groups):
            if group.layer == layer:
                climb.settle(index)
    masks = Masks({**unpruned(climb.sweep.groups).keep, **climb.sweep.keep})
    metrics = figures(session, masks, climb.sweep.fits, climb.sequence)
    return Pruned(masks, climb.sweep.weights, metrics | {"seconds": climb.watch.seconds})


class _Climb:
    """What is known between two sublayers.

    Attributes:
        groups: that have units, bottom to top.
        scores: the last measured knowledge of every unit that is not done.
        dense: z of the dense model, a tensor per batch.
    """

    def __init__(self, method: KPrune, session: Session) -> None:
        self.method, self.session = method, session
        self.sequence = sequence_of(method.target, session)
        self.sweep = Sweep(
            session.model,
            session.family,
            Reconstruction(
                student=Masks({}),
                teacher=Masks({}),
                tuning=method.tuning,
                token_weights=session.task.token_weights,
            ),
        )
        self.groups = [group for group in self.sweep.groups if group.units]
        self.budget = linear_budget(method.target, session, self.sequence)
        self.generator = np.random.default_rng(session.seed)
        self.watch = Stopwatch()
        self.scores: dict[str, Tensor] = {}
        self.dense: list[Tensor] = []

    def _measurement(self, model: nn.Module, groups: Sequence[PrunableGroup]) -> Measurement:
        task = self.session.task
        return Measurement(self.method, task, model=model, groups=groups, generator=self.generator)

    def start(self) -> None:
        """Measure the dense model, and record every batch in the same pass."""
        measurement = self._measurement(self.session.model, self.groups)

        def run(_: nn.Module, batch: Batch) -> None:
            self.dense.append(measurement.run(batch, None, partial(self.sweep.token_weights, batch)))

        self.sweep.start(self.session.calibration.batches(self.session.device), run)
        self.scores = measurement.scores()

    def enter(self, layer: str) -> None:
        """Bring the student up to a layer, and the teacher through it."""
        with self.watch.phase("tuning"):
            if layer != self.sweep.layers[0]:
                self.sweep.advance_student(self.sweep.layers[self.sweep.layers.index(layer) - 1])
            self.sweep.advance_teacher(layer)

    def settle(self, index: int) -> None:
        """Decide on one sublayer, remove what goes, re-fit the rest."""
        group, refresh = self.groups[index], self.method.refresh
        if index and refresh and index % refresh == 0:
            with self.watch.phase("knowledge"):
                evidence = self._measure(index)
        else:
            with self.watch.phase("tuning"):
                evidence = self.sweep.evidence(group)
        keep = self._search(index)
        with self.watch.phase("tuning"):
            self.sweep.fit(group, self.sweep.remove(group, keep, evidence))

    def _measure(self, index: int) -> Evidence:
        """Measure from the cached inputs of a sublayer upward; its moments come from the same pass."""
        group, sweep = self.groups[index], self.sweep
        now = sweep.left
        left = [now[each.name] for each in self.groups[index:]]
        measurement, evidence = self._measurement(sweep.student, left), sweep.empty_evidence(group)
        with watched(sweep.student, left[:1]) as seen:
            for cached, dense in zip(sweep.batches, self.dense, strict=True):
                with sweep.suffix(cached, group.layer):
                    measurement.run(cached.inputs, dense, partial(sweep.token_weights, cached.inputs))
                sweep.observe(group, cached, seen[group.name], evidence)
        self.scores = measurement.scores()
        return evidence

    def _search(self, index: int) -> Tensor:
        """Return the mask of one sublayer from the search over it and all above it."""
        rest = self.groups[index:]
        settled: Counter[UnitKind] = Counter()
        for group in self.groups[:index]:
            settled[group.kind] += int(self.sweep.keep[group.name].sum())
        found = threshold_masks(
            rest,
            {group.name: self.scores[group.name] for group in rest},
            prices=self.budget.prices,
            budget=self.budget.at(self.budget.keep),
            settled=settled,
        )
        return found.keep[self.groups[index].name]
