"""The numerics of ``smp``: from attention maps to scores of heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model import PrunableGroup
from compressor.progress import announced, track
from compressor.prune import shown_maps
from compressor_plugins.methods._map_scorer import MapScorer, padded_maps, resized_maps, score_maps
from compressor_plugins.methods._scorer_files import load_scorer
from compressor_plugins.methods._scorer_training import train_scorer
from compressor_plugins.methods._sentences import sentence_vectors

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences
    from compressor_plugins.methods.smp import Smp


def check(method: Smp, model: nn.Module) -> None:
    """Check that a scorer's file holds one, made for maps as the method shows them.

    Raises:
        InputError: it does not.
    """
    if isinstance(method.scorer, Path):
        _, provenance = load_scorer(method.scorer)
        _check_provenance(method, model, provenance)


def _check_provenance(method: Smp, model: Any, provenance: dict[str, Any]) -> None:
    made = provenance.get("length_normalised")
    if made is not None and made != method.length_normalised:
        raise InputError(
            f"{method.scorer}: the scorer was trained with length_normalised: {str(made).lower()}",
            hint=f"set length_normalised: {str(made).lower()}",
        )
    trained_on, own = provenance.get("model_type"), model.config.model_type
    if trained_on is not None and trained_on != own:
        announced.warning("smp: the scorer was trained on a model of type %s; this one is %s", trained_on, own)


def head_scores(method: Smp, session: Session, rows: Sentences) -> Scores:
    """Return the mean score of every head over the sentences, per group name, shape (units,), on the CPU."""
    if isinstance(method.scorer, Path):
        scorer, provenance = load_scorer(method.scorer)
        _check_provenance(method, rows.model, provenance)
    else:
        scorer = train_scorer(method.scorer.train, session, rows, length_normalised=method.length_normalised)
    return mean_scores(scorer.to(rows.device), rows, length_normalised=method.length_normalised)


@torch.no_grad()
def mean_scores(scorer: MapScorer, rows: Sentences, *, length_normalised: bool) -> Scores:
    """Return what a scorer gives the heads on average; maps of one layer and batch are in memory at a time."""
    totals = {group.name: torch.zeros(group.units, dtype=torch.float64) for group in rows.groups}
    shaped = resized_maps if length_normalised else padded_maps
    total = len(range(0, len(rows.rows), rows.batch_size))
    for batch in track(rows.batches(), "Attention maps", total=total):
        mask = batch["attention_mask"]

        def show(group: PrunableGroup, maps: Tensor, mask: Tensor = mask) -> None:
            scores = score_maps(scorer, shaped(maps, mask), rows.channel)
            totals[group.name] += scores.reshape(len(mask), -1).double().sum(dim=0).cpu()

        with shown_maps(rows.model, rows.groups, mask, show):
            sentence_vectors(rows.model, batch, pair=rows.pair)
    return {name: values / len(rows.rows) for name, values in totals.items()}
