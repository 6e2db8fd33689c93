"""Classes that the user may name, as an option of a task. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from compressor.plugin import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from compressor_plugins.tasks._classes import Classes


class NamedClasses(Task):
    """A task whose labels are classes."""

    labels: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="Names of the classes, in the order of the checkpoint's ids."
    )

    @property
    def num_labels(self) -> int | None:
        """Number of classes, when ``labels`` names them."""
        return len(self.labels) if self.labels else None

    def classes(self, rows: Dataset, column: str, *, label2id: Mapping[str, int] | None, source: str) -> Classes:
        """Return what is known of the classes in a column.

        Args:
            rows: as they were read.
            column: of class ids or names, or of lists of them.
            label2id: the checkpoint's ids by class name.
            source: where the rows come from, for messages.
        """
        from compressor_plugins.tasks import _classes

        return _classes.Classes.of_column(rows, column, chosen=self.labels, label2id=label2id, source=source)
