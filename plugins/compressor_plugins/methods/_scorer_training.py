"""Training a map scorer: heads are masked as its scores say, and the relations of sentences tell how wrong that was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compressor.model import PrunableGroup, masked
from compressor.model.checkpoint import fingerprint
from compressor.progress import Bar, announced
from compressor.prune import frozen, shown_maps
from compressor_plugins.methods._map_scorer import MapScorer, fresh_scorer, padded_maps, resized_maps, score_maps
from compressor_plugins.methods._relations import feature_mask, relation_loss, sampled_gates
from compressor_plugins.methods._scorer_files import save_scorer
from compressor_plugins.methods._scorer_state import ScorerState
from compressor_plugins.methods._scorer_texts import Texts, texts_of
from compressor_plugins.methods._sentences import Sentences, batch_of, sentence_vectors

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods._smp_options import ScorerTraining

SCORER = "scorer.safetensors"


def train_scorer(options: ScorerTraining, session: Session, rows: Sentences, *, length_normalised: bool) -> MapScorer:
    """Train a scorer on the session's model; leave it with its provenance in the step's directory.

    A killed training goes on from its newest checkpoint, to the same bytes: what a step draws depends on the seed and on its
    number alone.
    """
    texts = texts_of(options, session)
    provenance = {
        "model": session.plan.recipe.model,
        "model_type": _config(session).model_type,
        "weights_sha256": fingerprint(rows.model),
        "heads": [group.units for group in rows.groups],
        "tasks": [{"name": one.task.name, **one.task.options()} for one in texts],
        "rows": [len(one.rows) for one in texts],
        "options": options.model_dump(mode="json", exclude={"tasks", "checkpoint_every"}),
        "length_normalised": length_normalised,
        "seed": session.seed,
    }
    scorer = fresh_scorer(torch.Generator().manual_seed(session.seed)).to(rows.device)
    training = Training(options, rows, scorer, texts, seed=session.seed, length_normalised=length_normalised)
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    session.stage.mkdir(parents=True, exist_ok=True)
    training.run(ScorerState(session.stage / "checkpoints", key))
    save_scorer(scorer, session.stage / SCORER, provenance)
    return scorer.eval().requires_grad_(False)


def _config(session: Session) -> Any:
    return session.model.config


@dataclass
class Training:
    """A scorer in training.

    Attributes:
        losses: mean loss of each tenth of the steps so far.
    """

    options: ScorerTraining
    rows: Sentences
    scorer: MapScorer
    texts: Sequence[Texts]
    seed: int
    length_normalised: bool
    losses: list[float] = field(default_factory=list)

    def run(self, state: ScorerState) -> None:
        """Take every step that is not done yet."""
        options, start = self.options, time.perf_counter()
        make = torch.optim.Adam if options.optimizer == "adam" else torch.optim.SGD
        optimizer: torch.optim.Optimizer = make(self.scorer.parameters(), lr=options.learning_rate)
        first = state.restore(self.scorer, optimizer)
        bar = Bar("Training a scorer", total=options.steps, done=first)
        recent: list[float] = []
        self.scorer.train().requires_grad_(True)
        for number in range(first, options.steps):
            loss = self.loss(number)
            (loss / options.accumulation).backward()  # type: ignore[no-untyped-call]  # torch has no types here
            recent.append(float(loss.detach()))
            if options.decay:
                optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - number / options.steps)
            if (number + 1) % options.accumulation == 0 or number + 1 == options.steps:
                torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if (number + 1) % options.checkpoint_every == 0:
                    state.save(self.scorer, optimizer, number + 1)
            if (number + 1) % max(1, options.steps // 10) == 0:
                self.losses.append(sum(recent) / len(recent))
                recent.clear()
            bar.at(number + 1)
        bar.close()
        announced.info("scorer: %d steps, %.0f s, losses %s", options.steps, time.perf_counter() - start, self.losses)

    def loss(self, number: int) -> Tensor:
        """Return the loss of one step, with a graph that reaches the scorer through the sampled masks."""
        draw = np.random.default_rng([self.seed, number])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        weights = np.array([one.weight for one in self.texts], dtype=np.float64)
        texts = self.texts[int(draw.choice(len(self.texts), p=weights / weights.sum()))]
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
            gates = {name: sampled_gates(own, generator) for name, own in scores.items()}
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
        """Return the mean score of every head, per group name; all maps together make BatchNorm's statistics."""
        sizes = [len(own) for own in maps.values()]
        found = torch.split(score_maps(self.scorer, torch.cat(list(maps.values())), 0 if pair else 1), sizes)
        return {name: own.reshape(self.options.scored, -1).mean(dim=0) for name, own in zip(maps, found, strict=True)}
