"""CAP's structured back end: cut, train what is left, and cut again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.model import Masks, shrink
from compressor.model.elements import shrunk_masks
from compressor.model.regrow import full_weights
from compressor.plugin import Pruned
from compressor.progress import announced
from compressor.prune import Share
from compressor.train import CHECKPOINTS, Extension, Processes, TrainingRun
from compressor_plugins.methods._budget import sequence_of
from compressor_plugins.methods._cap_cuts import cut_by_cost, cut_by_percentage
from compressor_plugins.methods._cap_importance import importance, normalized
from compressor_plugins.methods._cap_store import Cut, Cuts
from compressor_plugins.methods._report import figures

if TYPE_CHECKING:
    from compressor.model import UnitKind
    from compressor.run.session import Session
    from compressor_plugins.methods.cap import Cap


def prune(method: Cap, begun: Session, session: Session) -> Pruned:
    """Run the method.

    Args:
        method: with its options.
        begun: a session whose model is the one to begin with.
        session: the run's, whose model gets the masks and weights that are returned.
    """
    options = json.dumps(method.options(), sort_keys=True)
    key = TrainingRun(begun, method.train).fingerprint(Extension(key=options))
    store = Cuts(begun.stage / CHECKPOINTS / "cuts", key)
    whole = Masks({group.name: torch.ones(group.units, dtype=torch.bool) for group in begun.groups})
    found = store.newest(begun.family, begun.family.model_types)
    cut = found or Cut(0, begun.model, whole, begun.weight_masks, {})
    Share(Processes.of_environment()).meet()  # nobody writes before all have looked
    for number in range(cut.done, len(method.percentages) if method.percentages else method.cuts):
        cut = _next(method, begun, cut, f"{key}/{number}")
        if Processes.of_environment().writes:
            store.save(cut)
    target = method.target
    sequence = session.calibration.mean_length if target is None else sequence_of(target, session)
    metrics = {**figures(session, cut.masks, (), sequence), "trainings": list(cut.figures)}
    return Pruned(cut.masks, weights=_weights(session, cut), metrics=metrics)


def _next(method: Cap, begun: Session, cut: Cut, key: str) -> Cut:
    """Return the model after one more cut and its training."""
    now = replace(begun, model=cut.model.to(begun.device), weight_masks=cut.weight_masks)
    masks, losses = _chosen(method, begun, now, cut)
    smaller = shrink(now.model, begun.family, masks)
    weight_masks = shrunk_masks(now.model, begun.family, now.weight_masks, masks)
    after = replace(now, model=smaller, weight_masks=weight_masks)
    left = _units(after)
    announced.info("cap: cut %d leaves %d heads and %d neurons", cut.done + 1, left["heads"], left["ffn_neurons"])
    before = begun.quality(smaller, examples=None)
    run = TrainingRun(after, method.train)
    run.objective.load_state_dict_of_losses(losses)
    trained = run.fit(Extension(key=key, snapshots=False))
    total = {name: mask.clone() for name, mask in cut.masks.keep.items()}
    for name, mask in cut.masks.keep.items():
        total[name][mask] = masks.keep[name]
    entry = {
        "makes": f"cut {cut.done + 1}: {left['heads']} heads, {left['ffn_neurons']} neurons",
        "heads": left["heads"],
        "neurons": left["ffn_neurons"],
        **trained.figures,
    }
    if before:
        after_training = begun.quality(trained.model, examples=None)
        entry["quality"] = {"metric": begun.task.metric, "before": before, "after": after_training}
        announced.info(
            "cap: %s %.4f -> %.4f", begun.task.metric, before[begun.task.metric], after_training[begun.task.metric]
        )
    return Cut(cut.done + 1, trained.model, Masks(total), weight_masks, losses, (*cut.figures, entry))


def _chosen(method: Cap, begun: Session, now: Session, cut: Cut) -> tuple[Masks, Mapping[str, Tensor]]:
    """Return the masks of the next cut, and what the losses remember once they have seen the model before it."""
    run = TrainingRun(now, method.train)
    run.objective.load_state_dict_of_losses(cut.losses)
    scores = importance(
        run, now.groups, per_sample=method.importance == "per-sample", samples=method.importance_samples
    )
    by_layer = method.target is None if method.normalize_by_layer is None else method.normalize_by_layer
    scores = normalized(scores) if by_layer else scores
    if cut.done:
        run.snapshot()
    losses = run.objective.state_dict_of_losses()
    if method.target is None:
        return cut_by_percentage(method, now, scores, _units(begun), cut.done), losses
    return cut_by_cost(method, begun, now, scores, cut.done), losses


def _units(session: Session) -> dict[UnitKind, int]:
    """Return how many units of each kind the session's model has."""
    kinds: tuple[UnitKind, ...] = ("heads", "ffn_neurons")
    return {kind: sum(group.units for group in session.groups if group.kind == kind) for kind in kinds}


def _weights(session: Session, cut: Cut) -> dict[str, Tensor]:
    """Return every parameter of the trained model, in the shapes of the run's model."""
    model: nn.Module = session.model
    small = dict(cut.model.named_parameters())
    same = {n: small[n].detach() for n, p in model.named_parameters() if n in small and small[n].shape == p.shape}
    return {**same, **full_weights(model, session.groups, cut.model, cut.masks.keep)}
