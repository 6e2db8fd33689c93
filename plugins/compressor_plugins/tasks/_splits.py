"""Where the rows of a published data set come from: a directory of files, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset

from compressor.errors import InputError, SetupError
from compressor_plugins.paths import EXTENSIONS
from compressor_plugins.tables import read_rows

KINDS = "|".join(extension[1:] for extension in EXTENSIONS)


@dataclass(frozen=True)
class Published:
    """A data set of the hub.

    Attributes:
        title: for messages, e.g. ``GLUE's mrpc``.
        hub: e.g. ``nyu-mll/glue``.
        subset: its part on the hub, and a folder below the directory of files; None = it has no parts.
    """

    title: str
    hub: str
    subset: str | None = None


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
    folder = path / (data.subset or "")
    directory = folder if folder.is_dir() else path
    for extension in EXTENSIONS:
        file = directory / f"{split}{extension}"
        if file.is_file():
            return read_rows(file), str(file)
    found = sorted(file.name for file in directory.iterdir() if file.suffix in EXTENSIONS)
    folders = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    wanted = f"has a folder '{data.subset}'" if data.subset else "holds the splits' files"
    raise InputError(
        f"{directory}: no file of the split '{split}' of {data.title}; expected {split}.<{KINDS}>; "
        f"found {', '.join(found or folders) or 'nothing'}",
        hint=f"name one of the files, without its ending, in task.{option}"
        if found
        else f"point task.path at a directory that {wanted}",
    )


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
