"""Where GLUE's rows come from."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset

from compressor.errors import InputError, SetupError
from compressor_plugins.tasks._files import read_rows
from compressor_plugins.tasks._options import EXTENSIONS

HUB_ID = "nyu-mll/glue"


def read(subset: str, split: str, *, path: Path | None, revision: str | None, option: str) -> tuple[Dataset, str]:
    """Return a split's rows, and words that say where they come from.

    Args:
        subset: e.g. ``mrpc``.
        split: e.g. ``validation``: a split of the hub's data set, or the stem of a file.
        path: directory of files; None = the hub.
        revision: of the hub's data set.
        option: the task's option that names another split.

    Raises:
        InputError: there is no such split.
        SetupError: the hub cannot be reached and has not been read before.
    """
    if path is None:
        return _from_hub(subset, split, revision), f"{HUB_ID} {subset}/{split}"
    directory = path / subset if (path / subset).is_dir() else path
    for extension in EXTENSIONS:
        file = directory / f"{split}{extension}"
        if file.is_file():
            return read_rows(file), str(file)
    found = sorted(file.name for file in directory.iterdir() if file.suffix in EXTENSIONS)
    folders = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    raise InputError(
        f"{directory}: no file of the split '{split}' of GLUE's {subset}; expected {split}.<"
        f"{'|'.join(extension[1:] for extension in EXTENSIONS)}>; found {', '.join(found or folders) or 'nothing'}",
        hint=f"name one of the files, without its ending, in task.{option}"
        if found
        else f"point task.path at a directory that has a folder '{subset}'",
    )


def _from_hub(subset: str, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(HUB_ID, subset, split=split, revision=revision)
    except ConnectionError as error:
        raise SetupError(
            f"the GLUE subset {subset} cannot be read from the hub's {HUB_ID}: {error}",
            hint="go online (unset HF_HUB_OFFLINE), or set task.path to a directory with "
            f"{subset}/{split}.<{'|'.join(extension[1:] for extension in EXTENSIONS)}>",
        ) from error
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{HUB_ID} {subset}/{split}, revision {revision or 'main'}: {error}") from error
