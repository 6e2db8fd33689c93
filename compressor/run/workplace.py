"""Where work happens and what appears: a partial directory, a lock, one rename, and the log."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from compressor.errors import CompressorError, InputError, SetupError, disk_full
from compressor.progress import announced
from compressor.run.output import LOCK

logger = logging.getLogger("compressor")
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Workplace:
    """A directory to make, by one process, all at once; by default that of a run.

    Attributes:
        out: the directory, as an absolute path.
        digest: of what makes it.
        fresh: throw away unfinished work, and replace ``out`` when the new one is finished.
        mark: a file that every finished directory of this sort has; nothing else is replaced.
        writer: the command that makes them.
        begun: patterns of what shows that a first stage was reached; nothing to look into is left behind before that.
        finished: patterns of what a refused attempt leaves for the next one; without any it leaves nothing.
        again: tells of a finished directory whether some of it is to be done again: work then goes on in it.
    """

    out: Path
    digest: str
    fresh: bool = False
    mark: str = LOCK
    writer: str = "compress apply"
    begun: tuple[str, ...] = ("stages",)
    finished: tuple[str, ...] = ("stages/*/stage.json",)
    again: Callable[[Path], bool] = lambda _: False

    @property
    def work(self) -> Path:
        """Where work happens, beside ``out``."""
        return self.out.with_name(f"{self.out.name}.partial-{self.digest[:12]}")

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Yield the directory to work in, alone; ``out`` appears by one rename when the block is done.

        Where work goes on in a finished ``out``, that is moved there first, and is back when the block fails.

        Raises:
            InputError: ``out`` exists, or cannot be made, or another process is at work on it.
            SetupError: the disk is full.
        """
        self._make()
        with self._alone(), self._put_back() if self._reopened() else self._tidied(), self._full_disk_named():
            self.check()  # another process may have finished it before this one had the lock
            if self.fresh:
                shutil.rmtree(self.work)
            self._make()
            yield self.work
            self._publish()

    def _reopened(self) -> bool:
        """Move a finished directory to where work happens, if some of it is to be done again; tell whether it is."""
        if not self.out.exists() and self.again(self.work):  # a process that went on in it was killed
            self.work.replace(self.out)
            self._make()
        if self.fresh or any(self.work.iterdir()) or not self.again(self.out):
            return False
        self.work.rmdir()
        self.out.replace(self.work)
        return True

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        """Let a directory that was finished before be where it was, whatever ends the attempt to go on in it."""
        try:
            yield
        except BaseException:
            if not self.out.exists():
                self.work.replace(self.out)
            raise

    def unfinished(self) -> list[Path]:
        """Return where other recipes began to make the same directory; whoever holds its lock is alone in all of them.

        With ``fresh`` there are none to take anything over from.
        """
        beside = sorted(self.out.parent.glob("*.partial-*")) if not self.fresh else []
        return [path for path in beside if path.name.startswith(f"{self.out.name}.partial-") and path != self.work]

    def check(self) -> None:
        """Refuse to overwrite anything, or with ``fresh`` anything but an older directory of this sort.

        Raises:
            InputError: it would be.
        """
        if not self.out.exists():
            return
        ours = (self.out / self.mark).is_file() or (self.out.is_dir() and not any(self.out.iterdir()))
        if not self.fresh:
            replacing = ", or --fresh to replace this one when the new run is finished" if ours else ""
            raise InputError(
                f"{self.out}: exists already; nothing is overwritten",
                hint=f"choose another directory with -o{replacing}",
            )
        if not ours:
            raise InputError(
                f"{self.out}: exists and has no {self.mark}; --fresh replaces only what {self.writer} wrote",
                hint="choose another directory with -o",
            )

    def _make(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.work}: this directory cannot be made: {error.strerror}", hint="choose another place with -o"
            ) from error

    @contextmanager
    def _tidied(self) -> Iterator[None]:
        """Leave nothing behind by an attempt that was refused before a stage was finished: there is nothing to resume."""
        try:
            yield
        except CompressorError as error:
            refused = isinstance(error, InputError) and not self._any(self.finished)
            if refused or not self._any(self.begun):
                shutil.rmtree(self.work)
            raise

    @contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Say where space is missing, and how to go on."""
        try:
            yield
        except Exception as error:
            if isinstance(error, SetupError) or not disk_full(error):
                raise
            again = "starts over" if self.fresh else "resumes; finished stages are kept"
            raise SetupError(
                f"{self.work}: the disk is full: {str(error).partition(chr(10))[0]}",
                hint=f"free space on this disk; the same command {again}",
            ) from error

    def _any(self, patterns: tuple[str, ...]) -> bool:
        return any(path for pattern in patterns for path in self.work.glob(pattern))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the output directory: two processes must not write one."""
        lock = FileLock(f"{self.out}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{self.out}: another process is at work on this directory", hint="wait for it, or use -o"
            ) from error
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _publish(self) -> None:
        """Make ``out`` appear by one rename; an older one is moved aside first and removed last."""
        old = self.out.with_name(f"{self.out.name}.old-{self.digest[:12]}")
        self.check()
        if self.out.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.out.replace(old)
        self.work.replace(self.out)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def log_file(path: Path, announce: Announce) -> Iterator[None]:
    """Append what is logged, errors with their tracebacks included, to a file; announce what asks for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    announcing = _Announcing(announce)
    announced.addHandler(announcing)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException:
        logger.exception("the run stopped")
        raise
    finally:
        announced.removeHandler(announcing)
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log on a full disk loses lines; what else is missing there is said once, by what stops."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing."""


class _Announcing(logging.Handler):
    """Passes on what is logged from where no ``Conditions`` reach."""

    def __init__(self, announce: Announce) -> None:
        super().__init__(logging.INFO)
        self.announce = announce

    def emit(self, record: logging.LogRecord) -> None:
        self.announce(record.getMessage())
