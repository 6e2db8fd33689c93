"""What a user sees while something runs: a bar with the time left on a terminal, elsewhere a line now and then; all on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from typing import TypeVar

from compressor.processes import Processes

T = TypeVar("T")
announced = logging.getLogger("compressor.announced")
"""For what a user should see on screen too, such as a measurement that takes minutes: a run passes it on."""
LINE_SECONDS = 30.0
"""Between two lines of one thing, where there is no terminal to draw on."""


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show how many are done and how long the others will take.

    Args:
        items: to go through.
        description: of what is done with them.
        total: how many they are, where they cannot be counted.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    bar = Bar(description, total=total)
    try:
        for done, item in enumerate(items, start=1):
            yield item
            bar.at(done)
    finally:
        bar.close()


class Bar:
    """How far something is: drawn where stderr is a terminal, else announced; of several processes, by the first one.

    Args:
        description: what stands before it.
        total: where it ends, if that is known.
        done: where it begins.
    """

    def __init__(self, description: str, *, total: int | None, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        self._writes = Processes.of_environment().writes
        self._drawn = self._writes and console.is_terminal
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._drawn)
        self._task = self._progress.add_task(description, total=total, completed=done)
        self._progress.start()
        self._description, self._total = description, total
        self._first, self._start = done, time.monotonic()
        self._said = self._start

    def at(self, done: int) -> None:
        """Move it."""
        self._progress.update(self._task, completed=done)
        now = time.monotonic()
        if self._writes and not self._drawn and now - self._said >= LINE_SECONDS and done != self._total:
            self._said = now
            announced.info("%s", progress_line(self._description, done, self._total, self._pace(done, now)))

    def _pace(self, done: int, now: float) -> float:
        return (now - self._start) / max(1, done - self._first)

    def close(self) -> None:
        """Take it off the screen."""
        self._progress.stop()


def progress_line(description: str, done: int, total: int | None, pace: float) -> str:
    """Say how far something is, and how long the rest will take.

    Args:
        description: of it.
        done: how much of it is done.
        total: how much it is, if that is known.
        pace: seconds for one.
    """
    if total is None:
        return f"{description}: {done} done"
    left = timedelta(seconds=round(pace * (total - done)))
    return f"{description}: {done} of {total}, about {left} left"
