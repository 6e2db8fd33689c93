"""Where the rows of a published data set come from: a directory of files, or the hub."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset

from compressor.errors import InputError, SetupError
from compressor_plugins.tables import read_rows
from compressor_plugins.tasks._split_files import KINDS, Published, split_file


def read(data: Published, split: str, *, path: Path | None, revision: str | None, option: str) -> tuple[Dataset, str]:
    """Return a split's rows, and words that say where they come from.

    Args:
        data: which data set.
        split: e.g. ``validation``: a split of the hub's data set, or the stem of a file.
        path: directory of files; None = the hub.
        revision: of the hub's data set.
        option: the task's option that names another split.

    Raises:
        InputError: there is no such split.
        SetupError: the hub cannot be reached and has not been read before.
    """
    if path is None:
        return _from_hub(data, split, revision), " ".join((data.hub, "/".join(filter(None, (data.subset, split)))))
    file = split_file(data, split, path=path, option=option)
    return read_rows(file), str(file)


def _from_hub(data: Published, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(data.hub, data.subset, split=split, revision=revision)
    except ConnectionError as error:
        file = "/".join(filter(None, (data.subset, f"{split}.<{KINDS}>")))
        raise SetupError(
            f"{data.title} cannot be read from the hub's {data.hub}: {error}",
            hint=f"go online (unset HF_HUB_OFFLINE), or set task.path to a directory with {file}",
        ) from error
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"{data.hub}, split {split} of {data.title}, revision {revision or 'main'}: {error}"
        ) from error
