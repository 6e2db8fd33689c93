"""What a model is: groups of units, masks, surgery, checkpoints, costs. Names are loaded when first asked for.

Declarations of plugins import groups from here without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.model.artifact import Artifact, initializer_elements
    from compressor.model.batches import collate
    from compressor.model.checkpoint import fingerprint, load, load_pretrained, save
    from compressor.model.depth import skipped
    from compressor.model.groups import ParamSlice, PrunableGroup, UnitKind
    from compressor.model.masks import Masks, Scores
    from compressor.model.outputs import accepted_inputs, max_positions, raw_output, read_output
    from compressor.model.runtime import SessionOptions, open_session
    from compressor.model.source import local_directory
    from compressor.model.surgery import BiasOnly, EmptyAttention, Family, apply_shapes, masked, shrink

__all__ = [
    "Artifact",
    "BiasOnly",
    "EmptyAttention",
    "Family",
    "Masks",
    "ParamSlice",
    "PrunableGroup",
    "Scores",
    "SessionOptions",
    "UnitKind",
    "accepted_inputs",
    "apply_shapes",
    "collate",
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
    "save",
    "shrink",
    "skipped",
]

_FILES = {
    "artifact": ("Artifact", "initializer_elements"),
    "checkpoint": ("fingerprint", "load", "load_pretrained", "save"),
    "depth": ("skipped",),
    "groups": ("ParamSlice", "PrunableGroup", "UnitKind"),
    "masks": ("Masks", "Scores"),
    "batches": ("collate",),
    "outputs": ("accepted_inputs", "max_positions", "raw_output", "read_output"),
    "runtime": ("SessionOptions", "open_session"),
    "source": ("local_directory",),
    "surgery": ("BiasOnly", "EmptyAttention", "Family", "apply_shapes", "masked", "shrink"),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
