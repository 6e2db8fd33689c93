"""Numerics that pruning methods share: gate gradients, mask search, least squares, layer-by-layer re-fitting."""

from compressor.prune.allocate import rearrange, search_masks, threshold_masks
from compressor.prune.attention import ShowMaps, attention, shown_maps
from compressor.prune.capture import Signals, consumer_inputs, frozen, gate_gradients, gate_products
from compressor.prune.curvature import DensePass, SublayerStatistics
from compressor.prune.fitting import Evidence, SublayerFit, Tuning, kept_columns
from compressor.prune.layerwise import (
    LayerCall,
    Sublayer,
    layer_names,
    record,
    replay,
    replay_until,
    resumed,
    token_weights,
    watched,
)
from compressor.prune.levels import Levels, choose_levels, level_masks
from compressor.prune.observation import Showing, real_tokens, show_batches
from compressor.prune.permutation import Search, find_orders, kept_score, reordered
from compressor.prune.reconstruction import reconstruct
from compressor.prune.removal import Removal, remove_units
from compressor.prune.schedule import Decay, Schedule, cubic_ramp, epoch_schedule, sparsity_at
from compressor.prune.selection import Selection, cut_weights, partway, select_masks
from compressor.prune.sharing import Share
from compressor.prune.shelf import Shelf, temporary_shelf
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights
from compressor.prune.sparsegpt import Surgery, prune_weight
from compressor.prune.streaming import Stream
from compressor.prune.students import Student
from compressor.prune.sweep import Cached, Reconstruction, Sweep, unpruned
from compressor.prune.teacher import Teacher

__all__ = [
    "Cached",
    "Correction",
    "Decay",
    "DensePass",
    "Evidence",
    "LayerCall",
    "Levels",
    "Moments",
    "Reconstruction",
    "Removal",
    "Schedule",
    "Search",
    "Selection",
    "Share",
    "Shelf",
    "ShowMaps",
    "Showing",
    "Signals",
    "Stream",
    "Student",
    "Sublayer",
    "SublayerFit",
    "SublayerStatistics",
    "Surgery",
    "Sweep",
    "Teacher",
    "Tuning",
    "attention",
    "choose_levels",
    "consumer_inputs",
    "cubic_ramp",
    "cut_weights",
    "epoch_schedule",
    "find_orders",
    "frozen",
    "gate_gradients",
    "gate_products",
    "kept_columns",
    "kept_score",
    "layer_names",
    "level_masks",
    "partway",
    "prune_weight",
    "real_tokens",
    "rearrange",
    "reconstruct",
    "record",
    "remove_units",
    "reordered",
    "replay",
    "replay_until",
    "residual",
    "resumed",
    "search_masks",
    "select_masks",
    "show_batches",
    "shown_maps",
    "solve_bias",
    "solve_scales",
    "solve_weights",
    "sparsity_at",
    "temporary_shelf",
    "threshold_masks",
    "token_weights",
    "unpruned",
    "watched",
]
