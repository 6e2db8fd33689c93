"""Whose class ids and names count: the user's, the data set's or the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from datasets import Dataset

from compressor.errors import InputError
from compressor_plugins.tasks._labels import class_ids, plain


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
