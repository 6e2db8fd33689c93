"""The one place where exceptions become messages and exit codes."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click

from compressor.cli.options import JSON_ASKED
from compressor.errors import INTERRUPTED, CompressorError, InputError, PluginError, RecipeError, SetupError, ran_out
from compressor.places import state
from compressor.processes import Processes

BUG = 70
OWN = {"compressor", "compressor_plugins"}
NO_LIBRARY = "cannot open shared object file"
"""What the loader says where a package such as torch lacks a library of the system."""
LESS_GPU_MEMORY = (
    "what fits less: --set calibration.batch_size=8, gradient_accumulation of a train step, a smaller max_length; "
    "or --device cpu"
)


@contextmanager
def exit_codes(context: click.Context) -> Iterator[None]:
    """Turn what is raised inside into a message on stderr and an exit code.

    A ``CompressorError`` ends with its own code, an interrupt with 130, memory or disk running out with 3, anything
    else with 70: one line on screen. What a plugin raised and what nobody foresaw leave a traceback in a log file.
    Click's own errors and exits pass. Where the verb was asked for JSON, the error is on stdout too.

    Args:
        context: of the command line; it knows the verb when something was raised.
    """
    try:
        yield
    except (click.exceptions.Exit, BrokenPipeError):
        raise
    except click.ClickException as error:
        _answer(context, InputError(error.format_message()), error.exit_code)
        raise
    except CompressorError as error:
        show(error)
        _answer(context, error, error.exit_code)
        if isinstance(error, PluginError) and error.__cause__ is not None:
            click.echo(f"  traceback: {write_log(error)}", err=True)
        raise click.exceptions.Exit(error.exit_code) from error
    except (KeyboardInterrupt, click.Abort) as error:
        click.echo(f"interrupted{_resuming(context)}", err=True)
        _answer(context, CompressorError("interrupted"), INTERRUPTED)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except Exception as error:
        if lacking := _lacking(context, error):
            show(lacking)
            _answer(context, lacking, lacking.exit_code)
            raise click.exceptions.Exit(lacking.exit_code) from error
        message = f"{type(error).__name__}: {first_line(error)} (traceback in {write_log(error)}; please report it)"
        click.secho("internal error: ", fg="red", nl=False, err=True)
        click.echo(message, err=True)
        _answer(context, CompressorError(message), BUG)
        raise click.exceptions.Exit(BUG) from error


def _lacking(context: click.Context, error: Exception) -> SetupError | None:
    """Return what the environment lacks, where that is what was raised: memory, disk, a library."""
    if ran_out(error):
        hint = f"free memory or disk{_resuming(context)}"
        if type(error).__name__ == "OutOfMemoryError":
            hint = f"{LESS_GPU_MEMORY}{_resuming(context)}"
        return SetupError(first_line(error) or "out of memory", hint=hint)
    foreign = isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in OWN
    if foreign or (isinstance(error, OSError) and NO_LIBRARY in str(error)):
        return SetupError(
            f"a library cannot be imported: {first_line(error)}", hint="compress doctor says what to install"
        )
    return None


def _answer(context: click.Context, error: CompressorError, code: int) -> None:
    """Write an error to stdout as JSON, where the verb was asked for JSON."""
    if not context.meta.get(JSON_ASKED):
        return
    problems = [asdict(one) for one in error.problems] if isinstance(error, RecipeError) else []
    answer = {"message": error.message, "next": error.hint, "exit_code": code, "problems": problems}
    click.echo(json.dumps({"error": answer}, indent=2, ensure_ascii=False))


def _resuming(context: click.Context) -> str:
    return "; the same command resumes" if context.invoked_subcommand in {"apply", "sweep"} else ""


def show(error: CompressorError) -> None:
    """Write an error and its next step to stderr."""
    click.secho("error: ", fg="red", nl=False, err=True)
    if isinstance(error, RecipeError) and len(error.problems) > 1:
        click.echo(f"{len(error.problems)} mistakes", err=True)
    click.echo(error.message, err=True)
    if error.hint:
        click.echo(f"  next: {error.hint}", err=True)


def echo_progress(message: str) -> None:
    """Write one line about what is happening to stderr; of several processes, the first one does."""
    if Processes.of_environment().writes:
        click.echo(message, err=True)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    return str(error).strip().partition("\n")[0]


def write_log(error: BaseException) -> Path:
    """Write the traceback, the command and the versions to a file, ready to paste, and return its path.

    The file is ``compressor/error.log`` below ``$XDG_STATE_HOME`` (``~/.local/state``), or below the temporary
    directory where that cannot be written.
    """
    text = "\n".join(
        [
            f"compressor-onnx {version('compressor-onnx')}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {' '.join(sys.argv)}",
            "",
            *(line.rstrip("\n") for line in traceback.format_exception(error)),
            "",
        ]
    )
    try:
        return _written(state() / "error.log", text)
    except OSError:
        return _written(Path(tempfile.mkdtemp(prefix="compressor-")) / "error.log", text)


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
