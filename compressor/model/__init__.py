"""What a model is: groups of units, masks, surgery, checkpoints, costs. Names are loaded when first asked for.

Declarations of plugins import groups from here without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.model.artifact import Artifact, StoredWeight, file_sparsity, initializer_elements, stored_weights
    from compressor.model.batches import collate
    from compressor.model.blocks import Blocks
    from compressor.model.checkpoint import fingerprint, load, load_pretrained, save
    from compressor.model.constant import removable_units
    from compressor.model.costs import encoder_macs, unit_prices
    from compressor.model.depth import skipped
    from compressor.model.elements import apply_masks, removed_elements, split_masks, zero_masks
    from compressor.model.emptied import BiasOnly, EmptyAttention
    from compressor.model.groups import ParamSlice, PrunableGroup, UnitKind
    from compressor.model.masks import Masks, Scores
    from compressor.model.outputs import accepted_inputs, at_real_tokens, max_positions, raw_output, read_output
    from compressor.model.runtime import SessionOptions, open_session
    from compressor.model.source import local_directory
    from compressor.model.surgery import Family, apply_shapes, masked, shrink
    from compressor.model.weights import WeightFilter, divided_weights, filtered_weights

__all__ = [
    "Artifact",
    "BiasOnly",
    "Blocks",
    "EmptyAttention",
    "Family",
    "Masks",
    "ParamSlice",
    "PrunableGroup",
    "Scores",
    "SessionOptions",
    "StoredWeight",
    "UnitKind",
    "WeightFilter",
    "accepted_inputs",
    "apply_masks",
    "apply_shapes",
    "at_real_tokens",
    "collate",
    "divided_weights",
    "encoder_macs",
    "file_sparsity",
    "filtered_weights",
    "fingerprint",
    "initializer_elements",
    "load",
    "load_pretrained",
    "local_directory",
    "masked",
    "max_positions",
    "open_session",
    "raw_output",
    "read_output",
    "removable_units",
    "removed_elements",
    "save",
    "shrink",
    "skipped",
    "split_masks",
    "stored_weights",
    "unit_prices",
    "zero_masks",
]

_FILES = {
    "artifact": ("Artifact", "StoredWeight", "file_sparsity", "initializer_elements", "stored_weights"),
    "blocks": ("Blocks",),
    "checkpoint": ("fingerprint", "load", "load_pretrained", "save"),
    "constant": ("removable_units",),
    "costs": ("encoder_macs", "unit_prices"),
    "depth": ("skipped",),
    "elements": ("apply_masks", "removed_elements", "split_masks", "zero_masks"),
    "groups": ("ParamSlice", "PrunableGroup", "UnitKind"),
    "masks": ("Masks", "Scores"),
    "batches": ("collate",),
    "outputs": ("accepted_inputs", "at_real_tokens", "max_positions", "raw_output", "read_output"),
    "runtime": ("SessionOptions", "open_session"),
    "source": ("local_directory",),
    "emptied": ("BiasOnly", "EmptyAttention"),
    "surgery": ("Family", "apply_shapes", "masked", "shrink"),
    "weights": ("WeightFilter", "divided_weights", "filtered_weights"),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
