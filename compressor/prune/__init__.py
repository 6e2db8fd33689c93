"""Numerics that pruning methods share: gate gradients, mask search, least squares, layer-by-layer re-fitting."""

from compressor.prune.allocate import rearrange, search_masks
from compressor.prune.capture import Signals, consumer_inputs, frozen, gate_gradients
from compressor.prune.layerwise import LayerCall, Sublayer, layer_names, record, replay, watched
from compressor.prune.reconstruction import Reconstruction, SublayerFit, Tuning, kept_columns, reconstruct
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

__all__ = [
    "Correction",
    "LayerCall",
    "Moments",
    "Reconstruction",
    "Signals",
    "Sublayer",
    "SublayerFit",
    "Tuning",
    "consumer_inputs",
    "frozen",
    "gate_gradients",
    "kept_columns",
    "layer_names",
    "rearrange",
    "reconstruct",
    "record",
    "replay",
    "residual",
    "search_masks",
    "solve_bias",
    "solve_scales",
    "solve_weights",
    "watched",
]
