"""Errors a user can act on; each knows the exit code that the command line ends with."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

INTERRUPTED = 130
"""Exit code of what was interrupted."""
DISK_FULL_TEXTS = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed writing file",
    "] . unexpected pos ",
)
"""What safetensors and ``torch.save`` (the last two), whose errors have no numbers, say when the disk is full."""
RAN_OUT_TEXTS = ("can't allocate memory", *DISK_FULL_TEXTS)
"""What they say when memory or the disk ran out."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def nearest_directory(path: Path) -> Path | None:
    """Return the directory whose path, part by part, is most like one that is not there; None where none is."""
    here = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if not (here / part).is_dir():
            try:
                siblings = [entry.name for entry in here.iterdir() if entry.is_dir()]
            except OSError:  # a directory that may not be read
                return None
            matches = get_close_matches(part, siblings, n=1, cutoff=0.6)
            if not matches:
                return None
            part = matches[0]  # noqa: PLW2901 - what was meant
        here /= part
    return here


class CompressorError(Exception):
    """Root of every error this package raises on purpose.

    The message says what went wrong, where, what was expected and what was found; ``hint`` is the next step.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message

    @property
    def line(self) -> str:
        """The message and the next step in one line."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(CompressorError):
    """What the user gave cannot be used: a recipe, a checkpoint, data, an option (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe: *where* in the file, at which *path*, and *what* is wrong."""

    source: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}  {self.path}: {self.message}" if self.path else f"{place}  {self.message}"


class RecipeError(InputError):
    """All mistakes of one recipe at once (exit code 2)."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SetupError(CompressorError):
    """The environment lacks something: an extra, an execution provider, a hub, memory (exit code 3)."""

    exit_code = 3


class MemoryShortageError(SetupError):
    """Memory ran out, the machine's or the GPU's: another point of a sweep may need less (exit code 3)."""


class PluginError(CompressorError):
    """A plugin failed; the message names it and its provider (exit code 4)."""

    exit_code = 4


def ran_out(error: BaseException) -> bool:
    """Tell whether memory (the machine's or the GPU's) or the disk ran out; torch is not imported to find out."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(text in str(error) for text in RAN_OUT_TEXTS)


def memory_ran_out(error: BaseException) -> bool:
    """Tell whether memory ran out, and not the disk."""
    return isinstance(error, MemoryShortageError) or (ran_out(error) and not disk_full(error))


def disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it came of, is that of a full disk or an exhausted quota."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    if not isinstance(error, CompressorError) and any(text in str(error) for text in DISK_FULL_TEXTS):
        return True
    return error.__cause__ is not None and disk_full(error.__cause__)
