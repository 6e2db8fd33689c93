"""Whose class ids and names count: the user's, the data set's or the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from compressor.errors import InputError
from compressor_plugins.tasks._labels import class_ids, plain

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Classes:
    """What is known of the classes of a label column.

    Attributes:
        names: by index in the data, or None when only the checkpoint tells.
        label2id: the checkpoint's ids by class name.
        chosen: the user's names in the order of the checkpoint's ids: they win.
        source: where the labels come from, for messages.
    """

    names: Sequence[str] | None
    label2id: Mapping[str, int] | None
    chosen: Sequence[str] | None
    source: str

    @classmethod
    def of_column(
        cls,
        rows: Dataset,
        column: str,
        *,
        chosen: Sequence[str] | None,
        label2id: Mapping[str, int] | None,
        source: str,
    ) -> Self:
        """Return those of a column of class ids or names, or of lists of them."""
        feature: Any = rows.features[column]
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        return cls(names, label2id, chosen, source)

    def ids(self, values: Sequence[Any]) -> list[int]:
        """Return the checkpoint's class id of every value.

        Raises:
            InputError: a value is no class, or the checkpoint has no such class.
        """
        if self.chosen:
            named = [self._name(value) for value in values]
            return class_ids(named, names=self.chosen, label2id=None, source=self.source)
        ids = class_ids(values, names=self.names, label2id=self.label2id, source=self.source)
        most = len(self.label2id) if self.label2id else None
        if most is not None and max(ids, default=0) >= most:
            raise InputError(
                f"{self.source}: label {max(ids)}: the checkpoint has classes 0 to {most - 1}",
                hint="give the checkpoint that was fine-tuned on these classes with -m",
            )
        return ids

    def _name(self, value: Any) -> Any:
        known = isinstance(value, int) and self.names is not None and 0 <= value < len(self.names)
        return self.names[value] if known and self.names is not None else value

    @property
    def by_id(self) -> list[str]:
        """Class names in the order of the ids that ``ids`` gives."""
        if self.chosen:
            return list(self.chosen)
        by_id = {number: name for name, number in (self.label2id or {}).items()}
        if self.names is not None and {plain(name) for name in by_id.values()} != {plain(name) for name in self.names}:
            return list(self.names)
        return [by_id[number] for number in sorted(by_id)]


def indicators(values: Sequence[Any], classes: Classes, *, separator: str) -> list[list[float]]:
    """Return 1.0 for the classes of every row and 0.0 for the others, shape (n, C).

    Args:
        values: of every row: a list of names or ids, a text of them, or one id.
        classes: of the column.
        separator: between the classes of a text.

    Raises:
        InputError: a class is unknown, or nobody tells how many there are.
    """
    count = len(classes.by_id)
    if count == 0:
        raise InputError(
            f"{classes.source}: the checkpoint does not name its classes",
            hint="list the class names in the order of the checkpoint's ids in the task's option 'labels'",
        )
    rows: list[list[float]] = []
    for value in values:
        named = _listed(value, separator)
        ids = set(classes.ids(named)) if named else set()
        rows.append([float(number in ids) for number in range(count)])
    return rows


def _listed(value: Any, separator: str) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator) if part.strip()]
    return value if isinstance(value, list) else [value]
