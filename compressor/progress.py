"""What a user sees while something runs: bars on stderr, silent where that is no terminal, and announced lines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
announced = logging.getLogger("compressor.announced")
"""For what a user should see on screen too, such as a measurement that takes minutes: a run passes it on."""


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items, drawing a bar on stderr when it is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(
        items, description, total=total, console=console, transient=True, disable=not console.is_terminal
    )


class Bar:
    """A bar on stderr, drawn when it is a terminal, that others move.

    Args:
        description: what stands before it.
        total: where it ends.
        done: where it begins.
    """

    def __init__(self, description: str, *, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(description, total=total, completed=done)
        self._progress.start()

    def at(self, done: int) -> None:
        """Move it."""
        self._progress.update(self._task, completed=done)

    def close(self) -> None:
        """Take it off the screen."""
        self._progress.stop()
