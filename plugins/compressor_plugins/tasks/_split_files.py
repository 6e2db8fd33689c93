"""The files of a published data set's splits in a directory. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compressor.errors import InputError
from compressor_plugins.paths import EXTENSIONS

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


SQUAD = {
    "1.1": Published("SQuAD 1.1", "rajpurkar/squad"),
    "2.0": Published("SQuAD 2.0", "rajpurkar/squad_v2"),
}


def split_file(data: Published, split: str, *, path: Path, option: str) -> Path:
    """Return the file of a split.

    Args:
        data: which data set.
        split: stem of the file, e.g. ``validation``.
        path: directory of files.
        option: the task's option that names another split.

    Raises:
        InputError: there is no such file.
    """
    folder = path / (data.subset or "")
    directory = folder if folder.is_dir() else path
    for extension in EXTENSIONS:
        file = directory / f"{split}{extension}"
        if file.is_file():
            return file
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
