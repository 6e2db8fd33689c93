"""From what a label column holds to class ids and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import InputError, did_you_mean


def plain(name: str) -> str:
    """Return a class name without the differences that checkpoints make: case, hyphens, spaces."""
    return name.casefold().replace("-", "_").replace(" ", "_")


def class_ids(
    values: Sequence[Any],
    *,
    names: Sequence[str] | None,
    label2id: Mapping[str, int] | None,
    source: str,
) -> list[int]:
    """Return the checkpoint's class id of every value of a label column.

    A whole number is an index into ``names`` (without names: the id itself); text is a class name. Ids follow the
    checkpoint where it knows the names, and the order of ``names`` where it does not.

    Args:
        values: whole numbers or class names.
        names: classes of the data by index, or None when only the checkpoint tells.
        label2id: the checkpoint's ids by class name.
        source: where the values come from, for messages.

    Raises:
        InputError: a value is neither, is out of range, or is no known name.
    """
    empty = next((number for number, value in enumerate(values, 1) if value == ""), None)
    if empty is not None:
        raise InputError(f"{source}: no label in row {empty} of {len(values)}")
    odd = next((value for value in values if isinstance(value, list | dict)), None)
    if odd is not None:
        raise InputError(f"{source}: label {odd!r}: expected a class id or a class name")
    known = {plain(name): number for name, number in (label2id or {}).items()}
    order = [plain(name) for name in names or ()]
    if names is not None and set(known) != set(order):  # LABEL_0, LABEL_1, ...: the checkpoint does not tell
        known = {name: number for number, name in enumerate(order)}
    by_index = [known[name] for name in order] if names is not None else list(range(len(known)))
    ids = {value: _class_id(value, known, by_index, source) for value in dict.fromkeys(values)}
    return [ids[value] for value in values]


def reordered(names: Sequence[str], label2id: Mapping[str, int] | None) -> bool:
    """Tell whether the checkpoint has the same class names in another order."""
    known = {plain(name): number for name, number in (label2id or {}).items()}
    order = {plain(name): number for number, name in enumerate(names)}
    return known.keys() == order.keys() and known != order


def _class_id(value: Any, known: Mapping[str, int], by_index: Sequence[int], source: str) -> int:
    if isinstance(value, str):
        if plain(value) in known or not value.strip().removeprefix("-").isdecimal():
            return _named(value, known, source)
        value = int(value)  # one odd cell, and the numbers of a csv column come as text
    if not isinstance(value, bool | int) and not (isinstance(value, float) and value.is_integer()):
        raise InputError(f"{source}: label {value!r}: expected a class id or a class name")
    index = int(value)
    if not by_index and index >= 0:  # nobody tells how many classes there are
        return index
    if not 0 <= index < len(by_index):
        expected = f"0 to {len(by_index) - 1}" if by_index else "0 or more"
        hidden = "; -1 marks labels that are not published" if index == -1 else ""
        raise InputError(
            f"{source}: label {index}: expected {expected}{hidden}",
            hint="use a split with labels for this number of classes, or a checkpoint with more classes",
        )
    return by_index[index]


def _named(value: str, known: Mapping[str, int], source: str) -> int:
    if plain(value) not in known:
        expected = f"expected one of {', '.join(known)}" if known else "the checkpoint does not name its classes"
        raise InputError(
            f"{source}: label '{value}': {expected}{did_you_mean(plain(value), known)}",
            hint="list the class names in the order of the checkpoint's ids in the task's option 'labels'",
        )
    return known[plain(value)]


def scores(values: Sequence[Any], *, low: float, high: float, source: str) -> list[float]:
    """Return regression labels.

    Raises:
        InputError: a value is not a number from ``low`` to ``high``.
    """
    for value in values:
        if not isinstance(value, int | float) or math.isnan(value) or not low <= value <= high:
            raise InputError(f"{source}: label {value!r}: expected a number from {low:g} to {high:g}")
    return [float(value) for value in values]
