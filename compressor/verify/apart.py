"""Measurements in a process of their own, where neither torch's threads nor a used heap disturb them.

``python -m compressor.verify.apart MODULE`` reads a request on stdin, gives it to the module's function ``answer`` and
writes what that returns on stdout, both JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from compressor.errors import (
    INTERRUPTED,
    CompressorError,
    InputError,
    MemoryShortageError,
    SetupError,
    memory_ran_out,
    ran_out,
)
from compressor.processes import same_imports

KINDS = {kind.__name__: kind for kind in (InputError, SetupError, MemoryShortageError)}
"""Errors that go on as what they are."""


def ask(module: str, request: Mapping[str, Any], *, patience: float | None = None) -> Any:
    """Return what a module's ``answer(request)`` gives in a fresh process, on the same cores and with the same imports.

    Args:
        module: its dotted name.
        request: plain data.
        patience: seconds after which the process is ended; None waits.

    Raises:
        CompressorError: what ``answer`` raised, of its own class; or the process ended early, or took too long.
    """
    command = [sys.executable, "-P", "-m", __name__, module]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            env=same_imports(),
            text=True,
            check=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:
        raise CompressorError(f"a measurement took longer than {patience:g} s") from error
    except subprocess.CalledProcessError as error:
        if error.returncode == INTERRUPTED:
            raise KeyboardInterrupt from error
        lacking = MemoryShortageError if -error.returncode == signal.SIGKILL else SetupError
        raise lacking(f"the process that measures ended early: {_ending(error.returncode)}") from error
    reply: dict[str, Any] = json.loads(done.stdout)
    if "failure" in reply:
        raise KINDS.get(reply["failure"], CompressorError)(reply["message"], hint=reply["hint"])
    if "bug" in reply:
        bug = RuntimeError(reply["bug"])
        bug.add_note(reply["traceback"])
        raise bug
    return reply["answer"]


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    killed = " (memory may have run out)" if -code == signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{killed}"


def reply(module: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer, or what went wrong, as plain data."""
    try:
        return {"answer": import_module(module).answer(request)}
    except CompressorError as error:
        return {"failure": type(error).__name__, "message": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - it goes on in the process that asked
        if ran_out(error):
            lacking = MemoryShortageError if memory_ran_out(error) else SetupError
            return {"failure": lacking.__name__, "message": str(error), "hint": "free memory or disk"}
        return {
            "bug": f"{type(error).__name__} in the process that measures: {error}",
            "traceback": traceback.format_exc(),
        }


def main() -> None:
    """Answer the request on stdin. What libraries print goes to stderr."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            json.dump(reply(sys.argv[1], json.load(sys.stdin)), out)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
