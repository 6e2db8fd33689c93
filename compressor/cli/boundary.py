"""The one place where exceptions become messages and exit codes."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click

from compressor.errors import CompressorError, PluginError, RecipeError, SetupError, ran_out
from compressor.processes import Processes

BUG = 70
INTERRUPTED = 130


@contextmanager
def exit_codes(context: click.Context) -> Iterator[None]:
    """Turn what is raised inside into a message on stderr and an exit code.

    A ``CompressorError`` ends with its own code, an interrupt with 130, memory or disk running out with 3, anything
    else with 70: one line on screen. What a plugin raised and what nobody foresaw leave a traceback in a log file.
    Click's own errors and exits pass.

    Args:
        context: of the command line; it knows the verb when something was raised.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except CompressorError as error:
        show(error)
        if isinstance(error, PluginError) and error.__cause__ is not None:
            click.echo(f"  traceback: {write_log(error)}", err=True)
        raise click.exceptions.Exit(error.exit_code) from error
    except (KeyboardInterrupt, click.Abort) as error:
        click.echo(f"interrupted{_resuming(context)}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except Exception as error:
        if ran_out(error):
            hint = f"free memory or disk{_resuming(context)}"
            show(SetupError(first_line(error) or "out of memory", hint=hint))
            raise click.exceptions.Exit(SetupError.exit_code) from error
        log = write_log(error)
        click.secho("internal error: ", fg="red", nl=False, err=True)
        click.echo(f"{type(error).__name__}: {first_line(error)} (traceback in {log}; please report it)", err=True)
        raise click.exceptions.Exit(BUG) from error


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
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "compressor"
    try:
        return _written(state / "error.log", text)
    except OSError:
        return _written(Path(tempfile.mkdtemp(prefix="compressor-")) / "error.log", text)


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
