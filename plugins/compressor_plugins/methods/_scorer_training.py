"""Training a map scorer: heads are masked as its scores say, and the relations of sentences tell how wrong that was."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from compressor.model.checkpoint import fingerprint
from compressor.progress import Bar, announced
from compressor_plugins.methods._map_scorer import MapScorer, fresh_scorer
from compressor_plugins.methods._scorer_files import save_scorer
from compressor_plugins.methods._scorer_objective import Objective
from compressor_plugins.methods._scorer_state import ScorerState
from compressor_plugins.methods._scorer_teacher import lessons
from compressor_plugins.methods._scorer_texts import texts_of

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences
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
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    session.stage.mkdir(parents=True, exist_ok=True)
    state = ScorerState(session.stage / "checkpoints", key)
    search = partial(lessons, rows, texts, swaps=options.swaps, seed=session.seed)
    objective = Objective(
        options,
        rows,
        scorer,
        texts,
        seed=session.seed,
        length_normalised=length_normalised,
        lessons=state.once("lessons", search) if options.lessons else {},
    )
    Training(options, objective).run(state)
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
    objective: Objective
    losses: list[float] = field(default_factory=list)

    def run(self, state: ScorerState) -> None:
        """Take every step that is not done yet."""
        options, start, steps = self.options, time.perf_counter(), self.options.lessons + self.options.steps
        scorer = self.objective.scorer
        make = torch.optim.Adam if options.optimizer == "adam" else torch.optim.SGD
        optimizer: torch.optim.Optimizer = make(scorer.parameters(), lr=options.learning_rate)
        first = state.restore(scorer, optimizer)
        bar = Bar("Training a scorer", total=steps, done=first)
        recent: list[float] = []
        scorer.train().requires_grad_(True)
        for number in range(first, steps):
            loss = self.objective.loss(number)
            (loss / options.accumulation).backward()  # type: ignore[no-untyped-call]  # torch has no types here
            recent.append(float(loss.detach()))
            if options.decay:
                optimizer.param_groups[0]["lr"] = options.learning_rate * (1 - number / steps)
            if (number + 1) % options.accumulation == 0 or number + 1 == steps:
                torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if (number + 1) % options.checkpoint_every == 0:
                    state.save(scorer, optimizer, number + 1)
            if (number + 1) % max(1, steps // 10) == 0:
                self.losses.append(sum(recent) / len(recent))
                recent.clear()
            bar.at(number + 1)
        bar.close()
        announced.info("scorer: %d steps, %.0f s, losses %s", steps, time.perf_counter() - start, self.losses)
