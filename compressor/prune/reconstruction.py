"""Re-fit what is left of a pruned encoder, sublayer by sublayer, bottom to top.

Each sublayer's output projection is corrected so that the student's output before LayerNorm comes close to the
teacher's, on the student's own inputs: drift of the layers below is undone too. Teacher and student are the same model
under different masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from compressor.model.surgery import Family
from compressor.progress import track
from compressor.prune.fitting import SublayerFit
from compressor.prune.sweep import Reconstruction, Sweep


def reconstruct(
    model: nn.Module, family: Family, batches: Iterable[Mapping[str, Tensor]], task: Reconstruction
) -> tuple[dict[str, Tensor], list[SublayerFit]]:
    """Return new output weights and biases by parameter name, in full shape, and what was done to each sublayer.

    A correction that does not lower the error on held-out rows is dropped for a weaker one, and the sweep goes on.
    Two forward passes of the model and less than three of what is left of it.

    Args:
        model: in eval mode; stays as it is.
        family: the table of its architecture.
        batches: on the model's device; with fewer than 8 rows, the rows that are fitted judge the fit too.
        task: what to re-fit.
    """
    sweep = Sweep(model, family, task)
    sweep.start(batches)
    for layer in track(sweep.layers, "Tuning layers"):
        sweep.advance_teacher(layer)
        for group in sweep.groups:
            if group.layer == layer and group.units:
                sweep.fit(group, sweep.evidence(group))
        if layer != sweep.layers[-1]:
            sweep.advance_student(layer)
    return sweep.weights, sweep.fits
