"""A data set as an option of a task. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from compressor.plugin import Task
from compressor.plugin.components import Split
from compressor_plugins.paths import missing


class DatasetOptions(BaseModel):
    """A data set of the hub, or a directory that ``datasets.load_dataset`` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, description="Name on the hub, or a directory of csv, jsonl or parquet files.")
    name: str | None = Field(default=None, description="Its configuration, where it has several.")
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    train: str = Field(default="train", description="Split of the calibration rows.")
    validation: str = Field(default="validation", description="Split of the rows the metric is computed on.")
    streaming: bool = Field(default=False, description="Read only the rows that are taken, instead of all files.")
    train_rows: int | None = Field(default=None, ge=1, description="Rows to take, from the first; default: all.")
    validation_rows: int | None = Field(default=None, ge=1, description="The same of the validation split.")

    _commit: str | None = PrivateAttr(default=None)

    @field_validator("path")
    @classmethod
    def _is_there(cls, path: str) -> str:
        place = Path(path).expanduser()
        if place.is_file():
            message = (
                f"expected a directory or a name on the hub, got the file {path}; files go in train and validation"
            )
            raise ValueError(message)
        if not place.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
            raise ValueError(missing(place))
        return path

    @property
    def directory(self) -> Path | None:
        """The directory, where ``path`` names one; else it is a name on the hub."""
        place = Path(self.path).expanduser()
        return place if place.is_dir() else None

    @property
    def commit(self) -> str | None:
        """The commit to read, whatever ``revision`` is by now; None = the one that it is now."""
        return self._commit

    def at(self, commit: str | None) -> Self:
        """Return the same options, which read this commit."""
        other = self.model_copy()
        other._commit = commit  # noqa: SLF001 - of the copy; no option, so that digests stay
        return other

    @model_validator(mode="after")
    def _stream_ends(self) -> Self:
        if self.streaming and None in (self.train_rows, self.validation_rows):
            message = "streaming needs train_rows and validation_rows, the numbers of rows to take"
            raise ValueError(message)
        return self

    def split(self, split: Split) -> tuple[str, int | None]:
        """Return the name of a split, and how many of its rows are taken."""
        return (self.train, self.train_rows) if split == "train" else (self.validation, self.validation_rows)


def _by_name(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


DatasetChoice = Annotated[DatasetOptions, BeforeValidator(_by_name)]
"""``owner/name`` or a mapping."""


class DatasetRows(Task):
    """A task that can read a data set."""

    dataset: DatasetChoice | None = Field(
        default=None,
        description="Instead of files: a data set's name on the hub or directory, or a mapping of path, name, "
        "revision, train and validation (names of splits), streaming, train_rows and validation_rows.",
    )

    def pinned(self) -> Mapping[str, str]:
        """Return the commit of a data set of the hub, where it is known."""
        if self.dataset is None:
            return {}
        from compressor_plugins.tasks import _hub

        return _hub.pinned(self.dataset)

    def pinned_to(self, inputs: Mapping[str, Any]) -> Self:
        """Return the task that reads the data set at the commit that was locked."""
        commit = inputs.get("dataset_revision")
        if self.dataset is None or commit is None:
            return self
        return self.model_copy(update={"dataset": self.dataset.at(str(commit))})
