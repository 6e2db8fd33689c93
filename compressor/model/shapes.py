"""The field ``pruned_shapes`` of ``config.json``: what each layer kept, in units of the dense model.

HF configs hold one head count and one FFN size for all layers, so a pruned model needs a field of its own:
``{"kept_heads": [[ids], ...], "kept_ffn_neurons": [[ids], ...], "heads": [counts], "ffn_neurons": [counts]}``, one
entry per layer. (It is not called ``pruned_heads``: transformers 4.57 interprets that key.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import InputError
from compressor.model.groups import PrunableGroup

FIELD = "pruned_shapes"


def record(config: Any, groups: Sequence[PrunableGroup], kept: Mapping[str, Sequence[int]]) -> None:
    """Write into a config what stays, composing with an earlier pruning: ids always mean units of the dense model.

    Args:
        config: of the model that the groups describe, changed in place.
        groups: of the model before this pruning.
        kept: per group name, ids of the kept units *of that model*, ascending; groups left out keep everything.
    """
    earlier = getattr(config, FIELD, None)
    shapes: dict[str, list[Any]] = {}
    complete = earlier is None
    for group in sorted(groups, key=lambda group: group.index):
        dense = earlier[f"kept_{group.kind}"][group.index] if earlier else list(range(group.units))
        ids = kept.get(group.name)
        stay = dense if ids is None else [dense[unit] for unit in ids]
        complete = complete and len(stay) == group.units
        shapes.setdefault(f"kept_{group.kind}", []).append(stay)
        shapes.setdefault(group.kind, []).append(len(stay))
    if not complete:
        setattr(config, FIELD, shapes)


def kept_ids(config: Any, groups: Sequence[PrunableGroup]) -> dict[str, list[int]]:
    """Return, per group name, the ids in the dense model of the units that a model with this config has.

    Args:
        config: of any model.
        groups: of the model that was never pruned further; where the config says nothing, all their units.
    """
    shapes = getattr(config, FIELD, None)
    return {
        group.name: list(shapes[f"kept_{group.kind}"][group.index]) if shapes else list(range(group.units))
        for group in groups
    }


def counts(config: Any, groups: Sequence[PrunableGroup]) -> dict[str, int]:
    """Read from a config how many units each group of the dense model keeps.

    Raises:
        InputError: the field does not fit the model.
    """
    shapes = getattr(config, FIELD, None)
    if not shapes:
        return {}
    result = {}
    for group in groups:
        try:
            result[group.name] = int(shapes[group.kind][group.index])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"config.json: {FIELD}.{group.kind} has no count for layer {group.index}",
                hint="the file was changed by hand; take the one the run wrote",
            ) from error
        if not 0 <= result[group.name] <= group.units:
            raise InputError(
                f"config.json: {FIELD}.{group.kind}[{group.index}]: expected 0 to {group.units}, "
                f"got {result[group.name]}"
            )
    return result
