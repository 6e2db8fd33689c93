"""Rows of one's own as options of a task: two files, or a data set. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import Field, model_validator

from compressor.plugin import Glance
from compressor.plugin.components import Split
from compressor_plugins.paths import TableFile
from compressor_plugins.tasks._classes import Classes
from compressor_plugins.tasks._dataset import DatasetRows

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset


class OwnRows(DatasetRows):
    """A task on rows of the user's own."""

    label_option: ClassVar[str] = ""
    """Option that names the column of labels; empty = there is none."""
    counted: ClassVar[bool] = False
    """Whether every row of a file is one sample."""

    train: TableFile | None = Field(
        default=None, description="File with calibration rows (csv, tsv, json, jsonl or parquet)."
    )
    validation: TableFile | None = Field(default=None, description="File with the rows the metric is computed on.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        files = (self.train is not None, self.validation is not None)
        if any(files) if self.dataset is not None else not all(files):
            message = "expected rows from the files 'train' and 'validation', or from 'dataset'"
            raise ValueError(message)
        return self

    def columns(self, split: Split) -> Mapping[str, str]:
        """Return the columns that are read of a split, by the options that name them."""
        del split
        return {}

    def judge(self, values: Sequence[Any], classes: Classes) -> None:
        """Check labels; raises ``InputError`` where ``load`` would."""
        classes.ids(values)

    def glance(self, split: Split, *, label2id: Mapping[str, int] | None = None) -> Glance:
        """Return what is wrong with a split's file, and how many samples it has; a data set is not looked at."""
        from compressor_plugins.tasks import _glance

        path = self.train if split == "train" else self.validation
        chosen = getattr(self, "labels", None)
        known = bool(label2id or chosen) or self.num_labels == 1

        def judge(values: list[Any], source: str) -> None:
            self.judge(values, Classes(None, label2id, chosen, source))

        columns = self.columns(split)
        label = columns.get(self.label_option, "")
        wanted = _glance.Wanted(columns.items(), label, judge if known else None, counted=self.counted)
        return Glance() if path is None else _glance.look(path, wanted, option=split)

    def read(self, split: Split) -> tuple[Dataset, str]:
        """Return a split's rows as they are, and words that say where they come from.

        Raises:
            InputError: they cannot be read.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins import tables
        from compressor_plugins.tasks import _hub

        if self.dataset is not None:
            return _hub.read(self.dataset, split)
        path = cast("Path", self.train if split == "train" else self.validation)
        return tables.read_rows(path), str(path)
