"""The numerics of ``sparsegpt``: one way up the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from compressor.model import Masks, shrink
from compressor.plugin import Pruned
from compressor.prune import Share, Stream, Surgery, prune_weight, reordered, temporary_shelf
from compressor_plugins.methods._one_shot import aligned, chosen_layouts, new_orders
from compressor_plugins.methods._report import Stopwatch

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods.sparsegpt import SparseGPT


def prune(method: SparseGPT, session: Session) -> Pruned:
    """Run the method on a session."""
    watch = Stopwatch()
    layouts, calibration = chosen_layouts(method, session.model), session.calibration
    share = Share.of_run(len(calibration), joint=method.joint)
    with watch.phase("permutation"):
        magnitudes = {name: session.model.get_parameter(name).abs() for name in layouts}
        orders, figures = new_orders(method, session, magnitudes, layouts)
        weights = reordered(dict(session.model.named_parameters()), session.groups, orders)
        model = shrink(session.model, session.family, Masks({}), weights)

    def one(name: str, weight: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
        surgery = Surgery(
            blocks=layouts[name],
            sparsity=method.sparsity,
            damping=method.damping,
            columns=method.block_columns,
        )
        return prune_weight(weight, share.summed(gram), surgery)

    with watch.phase("weights"), temporary_shelf(session.device) as shelf:
        stream = Stream(
            model, session.groups, batches=lambda: share.of(calibration.batches(session.device)), shelf=shelf
        )
        stream.prune(tuple(layouts), one)
    metrics = {**figures, "seconds": watch.seconds}
    return Pruned(Masks(stream.masks), {**weights, **stream.weights}, metrics, aligned=aligned(layouts, method))
