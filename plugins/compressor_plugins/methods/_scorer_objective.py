"""What one step of a scorer's training costs, from the seed and the step's number alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import PrunableGroup, masked
from compressor.prune import frozen, shown_maps
from compressor_plugins.methods._map_scorer import MapScorer, padded_maps, resized_maps, score_maps
from compressor_plugins.methods._relations import feature_mask, relation_loss, sampled_gates
from compressor_plugins.methods._sentences import Sentences, batch_of, channel_of, sentence_vectors

if TYPE_CHECKING:
    from compressor_plugins.methods._scorer_texts import Texts
    from compressor_plugins.methods._smp_options import ScorerTraining


@dataclass(frozen=True)
class Objective:
    """The losses of a training's steps.

    Attributes:
        scorer: that learns.
        texts: of each task.
        lessons: what every head should score, in (0, 1), shape (H,), per ``channel.group``; learned in the first steps.
    """

    options: ScorerTraining
    rows: Sentences
    scorer: MapScorer
    texts: Sequence[Texts]
    seed: int
    length_normalised: bool
    lessons: Mapping[str, Tensor] = field(default_factory=dict)

    def loss(self, number: int) -> Tensor:
        """Return the loss of one step: of a lesson, or of the relations that are left with heads masked."""
        draw = np.random.default_rng([self.seed, number])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        weights = np.array([one.weight for one in self.texts], dtype=np.float64)
        texts = self.texts[int(draw.choice(len(self.texts), p=weights / weights.sum()))]
        if number < self.options.lessons:
            return self._lesson(texts, draw)
        return self._relation_loss(texts, draw, generator)

    def _lesson(self, texts: Texts, draw: np.random.Generator) -> Tensor:
        """Return how far the scores of some sentences' heads are from what they should be, squared."""
        rows, pair = texts.drawn(self.options.scored, draw), texts.task.pairs
        batch = batch_of(rows, self.rows.tokenizer, self.rows.device)
        with torch.no_grad():
            _, maps = self._look(batch, self.rows.groups, pair=pair)
        scores = self._scores(maps, pair=pair)
        wanted = {name: self.lessons[f"{channel_of(pair=pair)}.{name}"].to(own) for name, own in scores.items()}
        return torch.cat([(own / 2 - wanted[name]).square().flatten() for name, own in scores.items()]).mean()

    def _relation_loss(self, texts: Texts, draw: np.random.Generator, generator: torch.Generator) -> Tensor:
        """Return the published loss, with a graph that reaches the scorer through the sampled masks."""
        rows = texts.drawn(self.options.batch_size, draw)
        batch = batch_of(rows, self.rows.tokenizer, self.rows.device)
        groups = self.rows.groups
        pruned = [groups[index] for index in draw.permutation(len(groups))[len(groups) // 2 :]]
        pair = texts.task.pairs
        with torch.no_grad():
            full, maps = self._look(batch, pruned, pair=pair)
        scores = self._scores(maps, pair=pair)
        losses = []
        for _ in range(self.options.draws):
            gates = {name: sampled_gates(own.mean(dim=0), generator) for name, own in scores.items()}
            with frozen(self.rows.model), masked(self.rows.model, groups, gates):
                vectors = sentence_vectors(self.rows.model, batch, pair=pair)
            features = feature_mask(full.shape[1], generator).to(full)
            losses.append(relation_loss(vectors * features, full * features, pair=pair))
        return torch.stack(losses).mean()

    def _look(
        self, batch: Mapping[str, Tensor], groups: Sequence[PrunableGroup], *, pair: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the whole model; return its vectors, and the maps of some sentences, as the scorer reads them."""
        shaped = resized_maps if self.length_normalised else padded_maps
        mask = batch["attention_mask"]
        maps: dict[str, Tensor] = {}

        def show(group: PrunableGroup, found: Tensor) -> None:
            maps[group.name] = shaped(found, mask[: len(found)])

        with shown_maps(self.rows.model, groups, mask, show, rows=self.options.scored):
            return sentence_vectors(self.rows.model, batch, pair=pair), maps

    def _scores(self, maps: Mapping[str, Tensor], *, pair: bool) -> dict[str, Tensor]:
        """Return the scores of every head, shape (scored, H), per group name; all maps together make BatchNorm's statistics."""
        sizes = [len(own) for own in maps.values()]
        found = torch.split(score_maps(self.scorer, torch.cat(list(maps.values())), channel_of(pair=pair)), sizes)
        return {name: own.reshape(self.options.scored, -1) for name, own in zip(maps, found, strict=True)}
