"""Rows of a data set that the user names: on the hub, or a directory that ``datasets`` reads. No code of it is run."""

from __future__ import annotations

from functools import lru_cache
from tempfile import TemporaryDirectory

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi

from compressor.errors import InputError, SetupError
from compressor.plugin.components import Split
from compressor_plugins.tables import quiet
from compressor_plugins.tasks._dataset import DatasetOptions

SECONDS = 10
"""That the hub is given to say which commit a revision is."""


def read(options: DatasetOptions, split: Split) -> tuple[Dataset, str]:
    """Return the rows that are taken of a split, and words that say where they come from.

    Raises:
        InputError: there is no such data set, configuration, split or revision, it is broken, or it has no rows.
        SetupError: the hub cannot be reached and has not been read before.
    """
    name, count = options.split(split)
    source = " ".join((options.path, "/".join(filter(None, (options.name, name)))))
    try:
        with quiet():
            rows = _streamed(options, name, count or 0) if options.streaming else _loaded(options, name)
    except (DatasetsError, FileNotFoundError, ValueError) as error:
        raise InputError(
            f"{source}: {error.__cause__ or error}", hint=f"check task.dataset: path, name, {split} and revision"
        ) from error
    except Exception as error:  # the hub's and its HTTP client's errors share no root
        reason = str(error).partition("\n")[0]
        raise SetupError(
            f"{options.path}: no such directory, and the hub cannot give the data set: {reason}",
            hint="set task.dataset.path to a local directory of csv, jsonl or parquet files, or check the connection "
            "(and HF_HUB_OFFLINE, HF_ENDPOINT)",
        ) from error
    if count is not None:
        rows = rows.select(range(min(count, len(rows))))
    if len(rows) == 0:
        raise InputError(f"{source}: there are no rows")
    return rows, source


def _streamed(options: DatasetOptions, name: str, count: int) -> Dataset:
    stream = load_dataset(options.path, options.name, split=name, revision=_revision(options), streaming=True)
    return Dataset.from_list(list(stream.take(count)), features=stream.features)


def _loaded(options: DatasetOptions, name: str) -> Dataset:
    if options.directory is None:
        return load_dataset(options.path, options.name, split=name, revision=_revision(options))
    with TemporaryDirectory() as cache:  # an edited file is read anew
        return load_dataset(str(options.directory), options.name, split=name, cache_dir=cache, keep_in_memory=True)


def _revision(options: DatasetOptions) -> str | None:
    """Return the commit, where the hub says which one it is, so that what is read is what is locked."""
    return (options.commit or commit(options.path, options.revision)) if options.directory is None else None


@lru_cache
def commit(path: str, revision: str | None) -> str | None:
    """Return the commit that a revision of a data set of the hub is; without the hub, the revision itself."""
    try:
        return HfApi().dataset_info(path, revision=revision, timeout=SECONDS).sha or revision
    except Exception:  # noqa: BLE001 - what is wrong is said where the rows are read
        return revision


def pinned(options: DatasetOptions) -> dict[str, str]:
    """Return what the lock file says of where the rows come from; files are pinned by the rows' hashes."""
    known = _revision(options)
    return {"dataset_revision": known} if known else {}
