"""Options that name files, which components of several kinds have. Importing this module does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from compressor.errors import did_you_mean

EXTENSIONS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
TAGGED = (".conll", ".iob", ".bio", ".txt")
"""Files with a word and its tag per line."""


def missing(path: Path) -> str:
    """Say that a path is not there, and name the nearest one that is."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"no such file or directory: {path}{did_you_mean(path.name, siblings)}"


def _exists(path: Path) -> Path:
    """Return the path, ``~`` spelt out."""
    path = path.expanduser() if path.parts[:1] == ("~",) else path
    if path.exists():
        return path
    message = missing(path)
    raise ValueError(message)


def _is_directory(path: Path) -> Path:
    path = _exists(path)
    if path.is_dir():
        return path
    message = f"expected a directory, got a file: {path}"
    raise ValueError(message)


def _is_table(path: Path) -> Path:
    return is_file(path, EXTENSIONS)


def _is_text(path: Path) -> Path:
    return is_file(path, (".txt", *EXTENSIONS))


def _is_tagged(path: Path) -> Path:
    return is_file(path, (*TAGGED, *EXTENSIONS))


def is_file(path: Path, extensions: tuple[str, ...]) -> Path:
    """Return the path of a file that is there and ends in one of the extensions, ``~`` spelt out."""
    path = _exists(path)
    if not path.is_file():
        message = f"expected a file, got a directory: {path}"
        raise ValueError(message)
    if path.suffix not in extensions:
        message = f"expected a file ending in {', '.join(extensions)}; got {path.name}"
        raise ValueError(message)
    return path


ExistingDirectory = Annotated[Path, AfterValidator(_is_directory)]
TableFile = Annotated[Path, AfterValidator(_is_table)]
TaggedFile = Annotated[Path, AfterValidator(_is_tagged)]
TextFile = Annotated[Path, AfterValidator(_is_text)]
