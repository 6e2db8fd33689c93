"""Kills one run at every file operation, one after the other: ``python -m tests.slow.kills RECIPE OUT KILLS``.

Every attempt is a fork of a process that has imported everything, so it costs no more than the stage that it repeats.
An attempt dies by SIGKILL at the first write or rename at which none has died before: half of a write is done.
The last one has nowhere to die, and finishes. Prints, as JSON, where the attempts died and how the last one ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import onnxruntime  # noqa: F401 - before the forks
import pytest

from compressor.cli import main
from compressor.model.companions import TOKENIZER_FILES
from compressor.plugin import Registry
from compressor.run import pipeline, steps  # noqa: F401 - before the forks
from compressor.verify.report import render  # noqa: F401 - before the forks
from tests import lookup
from tests.faults import Operation, watch


def is_of_interest(operation: Operation) -> bool:
    """Tell whether to die here: nothing new is learned at directories, at copies of the tokenizer, at most drafts."""
    name = operation.path.name
    if operation.name == "sync":
        return name.startswith(("stage.json", "recipe.lock.yaml"))
    return operation.name != "make" and name not in TOKENIZER_FILES


def attempt(recipe: Path, out: Path, seen: list[str] | None, pipe: int) -> None:
    """Run the command line in this process, until it comes to an operation that is new; to the end without ``seen``."""

    def strike(operation: Operation) -> None:
        if seen is not None and is_of_interest(operation) and operation.path.is_relative_to(out.parent):
            place = f"{operation.name} {operation.path.relative_to(out.parent)}"
            if place not in seen:
                operation.half()
                os.write(pipe, place.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    registry = Registry.load()
    registry.register(lookup, "lookup")
    patch = pytest.MonkeyPatch()
    patch.setattr(Registry, "load", lambda: registry)
    lookup.hurry(patch)
    watch(patch, strike)
    main(["apply", str(recipe), "-o", str(out), "--device", "cpu"], standalone_mode=False)


def forked(recipe: Path, out: Path, seen: list[str] | None) -> tuple[int, str]:
    """Return how an attempt ended, in the way of a shell, and where it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            attempt(recipe, out, seen, writing)
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        place = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), place


def kill_everywhere(recipe: Path, out: Path, *, most: int) -> dict[str, object]:
    """Return where attempts died, after which of them the directory was there, and how the last one ended."""
    seen: list[str] = []
    early: list[str] = []
    while True:
        status, place = forked(recipe, out, seen if len(seen) < most else None)
        if status != -signal.SIGKILL:
            return {"places": seen, "early": early, "status": status}
        seen.append(place)
        if out.exists():
            early.append(place)


if __name__ == "__main__":
    found = kill_everywhere(Path(sys.argv[1]), Path(sys.argv[2]), most=int(sys.argv[3]))
    print(json.dumps(found))  # noqa: T201 - its answer
