"""The numerics of ``one_shot``: from a criterion's scores to masks of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from compressor.model.blocks import Blocks
from compressor.model.weights import filtered_weights
from compressor.plugin import Pruned, read_scores
from compressor.progress import announced, track
from compressor.prune import (
    Search,
    Selection,
    Share,
    Showing,
    Signals,
    find_orders,
    kept_score,
    reordered,
    select_masks,
    show_batches,
)
from compressor_plugins.methods._layouts import layouts_of, say_skipped
from compressor_plugins.methods._report import Stopwatch

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._weight_pruning import WeightPruning
    from compressor_plugins.methods.one_shot import OneShot


def prune(method: OneShot, session: Session) -> Pruned:
    """Run the method on a session."""
    watch = Stopwatch()
    layouts = chosen_layouts(method, session.model)
    with watch.phase("scores"):
        scores = scored(method, session, layouts)
    with watch.phase("permutation"):
        orders, figures = new_orders(method, session, scores, layouts)
        weights = reordered(dict(session.model.named_parameters()), session.groups, orders)
        scores = {**scores, **reordered(scores, session.groups, orders)}
    with watch.phase("selection"):
        masks = select_masks(scores, layouts, method.sparsity, selection_of(method))
    return Pruned(masks, weights, {**figures, "seconds": watch.seconds}, aligned=aligned(layouts, method))


def new_orders(
    method: WeightPruning, session: Session, scores: Scores, layouts: Mapping[str, Blocks]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return orders of neurons and of coordinates inside heads under which N:M keeps more, and how much more.

    Where earlier steps left masks there are none: those masks are of the old order.
    """
    if not method.permute:
        return {}, {}
    if session.weight_masks.keep:
        announced.warning("%s: nothing is reordered, since earlier masks hold in the old order", method.name)
        return {}, {}
    orders = find_orders(session.groups, scores, layouts, Search(seed=session.seed))
    changed = reordered(scores, session.groups, orders)
    names = [f"{group.consumer.module}.weight" for group in session.groups if group.name in orders]
    before, after = (sum(kept_score(tensors[name], layouts[name]) for name in names) for tensors in (scores, changed))
    return orders, {"permutation": {"weights": len(names), "kept_score_before": before, "kept_score_after": after}}


def selection_of(method: Any) -> Selection:
    """Return how weights are compared."""
    return Selection(
        scope=method.pruning_scope,
        unit=method.sparsity_unit,
        reduction=method.criterion_reduce_type,
        minimum=method.min_sparsity_ratio_per_op,
        maximum=method.max_sparsity_ratio_per_op,
    )


def chosen_layouts(method: WeightPruning, model: nn.Module) -> dict[str, Blocks]:
    """Return how the chosen weights are cut, by parameter name; say which ones do not divide.

    Raises:
        InputError: no weight is left.
    """
    layouts, skipped = layouts_of(model, filtered_weights(model, method.chosen()), method.pattern, method.name)
    say_skipped(skipped, method.pattern, method.name)
    return layouts


def aligned(layouts: Mapping[str, Blocks], method: WeightPruning) -> tuple[str, ...]:
    """Return the weights whose masks follow a grid that removing units would shift."""
    return () if method.pattern.structured else tuple(name for name, blocks in layouts.items() if blocks.size > 1)


def scored(method: OneShot, session: Session, layouts: dict[str, Blocks]) -> Scores:
    """Return the scores of the chosen weights; those that the output does not depend on leave ``layouts``."""
    model, criterion, calibration = session.model, method.criterion, session.calibration
    share = Share.of_run(len(calibration), joint=method.joint and not session.task.label_free)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in layouts}
    run = criterion.start(shapes)
    showing = Showing(
        names=tuple(layouts),
        needs=criterion.needs,
        signals=loss_signals(session),
        together=method.shows_together,
        share=share,
    )
    batches = track(share.of(calibration.batches(session.device)), "Scores", total=share.size(len(calibration)))
    show_batches(model, run.observe, batches, showing)
    scores = read_scores(criterion, run, shapes)
    for name in [name for name in layouts if name not in scores]:
        announced.warning("%s stays dense: the output does not depend on it", name)
        del layouts[name]
    return {name: _below_where_gone(scores[name], session.weight_masks.keep.get(name)) for name in layouts}


def _below_where_gone(scores: Tensor, kept: Tensor | None) -> Tensor:
    """Return scores that are lowest where an earlier step pruned: what is gone goes first, and counts."""
    return scores if kept is None else scores.masked_fill(~kept.to(scores.device), float(scores.min()) - 1.0)


def loss_signals(session: Session) -> Signals:
    """Return what gradients are of: the loss of every row, or random projections where there are no labels."""
    task, generator = session.task, np.random.default_rng(session.seed)

    def losses(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return task.sample_losses(task.output(raw, batch), batch).unsqueeze(1)

    def projections(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return task.curvature(task.output(raw, batch), draws=1, generator=generator)

    return projections if task.label_free else losses
