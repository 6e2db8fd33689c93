"""The fields ``pruned_shapes`` and ``kept_layers`` of ``config.json``: what is left of the dense model.

HF configs hold one head count and one FFN size for all layers, so a pruned model needs a field of its own:
``{"kept_heads": [[ids], ...], "kept_ffn_neurons": [[ids], ...], "heads": [counts], "ffn_neurons": [counts]}``, one
entry per layer that is left. (It is not called ``pruned_heads``: transformers 4.57 interprets that key.) A model
that lost whole layers says in ``num_hidden_layers`` how many it has, and in ``kept_layers`` which of the dense model's
they are, e.g. ``[0, 1, 3, 5]``; transformers needs the first only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from compressor.errors import InputError
from compressor.model.groups import PrunableGroup

FIELD = "pruned_shapes"
LAYERS = "kept_layers"


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


def record_layers(config: Any, groups: Sequence[PrunableGroup], dropped: Collection[int]) -> None:
    """Write into a config which layers stay, composing with earlier drops: ids always mean layers of the dense model.

    Args:
        config: of the model that the groups describe, changed in place.
        groups: of the model before the drop.
        dropped: numbers of layers *of that model*.
    """
    left = [layer for number, layer in enumerate(layer_ids(config, groups)) if number not in dropped]
    setattr(config, LAYERS, left)
    config.num_hidden_layers = len(left)


def layer_ids(config: Any, groups: Sequence[PrunableGroup]) -> list[int]:
    """Return, bottom to top, which layers of the dense model the layers of a model are.

    Args:
        config: of the model.
        groups: of the model.

    Raises:
        InputError: the field does not fit the model.
    """
    count = 1 + max((group.index for group in groups), default=-1)
    ids = getattr(config, LAYERS, None)
    if ids is None:
        return list(range(count))
    numbers = isinstance(ids, list) and all(type(layer) is int and layer >= 0 for layer in ids)
    if not numbers or sorted(set(ids)) != ids or len(ids) != count:
        raise InputError(
            f"config.json: {LAYERS}: expected {count} ascending layer numbers, one per layer of the model, got {ids!r}",
            hint="the file was changed by hand; take the one the run wrote",
        )
    return list(ids)


def kept_ids(config: Any, groups: Sequence[PrunableGroup], layers: Sequence[int]) -> dict[str, list[int]]:
    """Return, per group name of an earlier model, the ids in the dense model of the units that a later one has.

    Args:
        config: of the later model, or of the earlier one itself.
        groups: of the earlier model; where the config says nothing, all their units.
        layers: ``layer_ids`` of the earlier model. The units of those that the later one has not are gone.
    """
    shapes, left = getattr(config, FIELD, None), getattr(config, LAYERS, None) or list(layers)
    result: dict[str, list[int]] = {}
    for group in groups:
        layer = layers[group.index]
        whole = list(range(group.units)) if layer in left else []
        result[group.name] = list(shapes[f"kept_{group.kind}"][left.index(layer)]) if shapes and whole else whole
    return result


def kept_heads(config: Any, index: int) -> tuple[int, ...]:
    """Return which heads of the dense model a layer has that lost some.

    Args:
        config: of the model.
        index: number of the layer, from 0 at the bottom.

    Raises:
        InputError: the field does not say it.
    """
    shapes = getattr(config, FIELD, None)
    try:
        return tuple(int(head) for head in shapes["kept_heads"][index])  # type: ignore[index]  # None is an error too
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"config.json: {FIELD}.kept_heads does not say which heads layer {index} has",
            hint="the file was changed by hand; take the one the run wrote",
        ) from error


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
