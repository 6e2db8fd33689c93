"""Run a plan: load, calibrate, one hook call per step, and the finished directory by one rename."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from compressor.errors import CompressorError, InputError
from compressor.model import checkpoint
from compressor.plugin.registry import Registry
from compressor.progress import announced
from compressor.recipe.plan import Plan, Step
from compressor.run import steps
from compressor.run.calls import plugin_call
from compressor.run.data import rows_digest
from compressor.run.journal import Journal, chain
from compressor.run.load import open_session
from compressor.run.output import LOCK, build_report, drop_duplicates, keep_recipe, write_output
from compressor.run.preflight import check_runtime
from compressor.run.session import Outcome, Session
from compressor.verify.environment import environment

logger = logging.getLogger("compressor")
Announce = Callable[[str], None]
CORE = "compressor.run.steps"
"""Name of the core's own hook implementation among the plugins."""


@dataclass(frozen=True)
class Conditions:
    """What a run runs with.

    Attributes:
        registry: the installed plugins, whose ``compressor_run_step`` hooks are called.
        device: where the model and the calibration batches go.
        announce: told one line per stage.
    """

    registry: Registry
    device: torch.device
    announce: Announce = lambda _: None

    def tell(self, line: str) -> None:
        """Write a line to the run's log, and announce it."""
        logger.info(line)
        self.announce(line)


@dataclass(frozen=True)
class Finished:
    """A finished run: its directory and its report (plain data, as in ``report.json``)."""

    directory: Path
    report: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return bool(self.report["passed"])


def run(plan: Plan, out: Path, conditions: Conditions, *, fresh: bool = False) -> Finished:
    """Run a plan into the directory ``out``, resuming a killed run of the same plan.

    Work happens in ``out.partial-<digest>`` beside it; ``out`` appears by one rename when everything is done.

    Args:
        plan: what to do.
        out: the directory to make.
        conditions: plugins, device, and who is told.
        fresh: throw away an unfinished run, and replace ``out`` when the new one is finished.

    Raises:
        InputError: ``out`` exists, or cannot be made, or another process is at work on the same run.
        SetupError: onnxruntime or the asked provider is missing.
        CompressorError: a step cannot be done; finished stages stay for the next attempt.
    """
    out = out.resolve()
    work = out.with_name(f"{out.name}.partial-{plan.digest[:12]}")
    _check_output(out, fresh=fresh)
    check_runtime(plan)
    if CORE not in {plugin.entry_point for plugin in conditions.registry.plugins}:
        conditions.registry.register(steps, CORE)
    _make_directory(work)
    with _alone(out), _tidied(work):
        _check_output(out, fresh=fresh)  # another process may have finished it before this one had the lock
        if fresh:
            shutil.rmtree(work)
        _make_directory(work)
        with _log_file(work / "logs" / "run.log", conditions.announce):
            report = _run_stages(plan, work, conditions)
        _publish(work, out, fresh=fresh)
    drop_duplicates(out)
    return Finished(out, report)


def _check_output(out: Path, *, fresh: bool) -> None:
    """Refuse to overwrite anything, or with ``fresh`` anything but an older run."""
    if not out.exists():
        return
    if not fresh:
        raise InputError(
            f"{out}: exists already; nothing is overwritten",
            hint="choose another directory with -o, or --fresh to replace this one when the new run is finished",
        )
    if not (out / LOCK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out}: exists and has no {LOCK}; --fresh replaces only what compress apply wrote",
            hint="choose another directory with -o",
        )


def _make_directory(work: Path) -> None:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{work}: this directory cannot be made: {error.strerror}", hint="choose another place with -o"
        ) from error


@contextmanager
def _tidied(work: Path) -> Iterator[None]:
    """Leave nothing behind by a run that was refused before a stage was finished: there is nothing to resume."""
    try:
        yield
    except CompressorError as error:
        refused = isinstance(error, InputError) and not any(work.glob("stages/*/stage.json"))
        if refused or not (work / "stages").exists():
            shutil.rmtree(work)
        raise


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of the output directory: two processes must not write one."""
    lock = FileLock(f"{out}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"{out}: another process is at work on this directory", hint="wait for it, or use -o"
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _log_file(path: Path, announce: Announce) -> Iterator[None]:
    """Append what the run logs, errors with their tracebacks included, to a file; announce what asks for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
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
        handler.close()


class _Announcing(logging.Handler):
    """Passes on what is logged from where no ``Conditions`` reach."""

    def __init__(self, announce: Announce) -> None:
        super().__init__(logging.INFO)
        self.announce = announce

    def emit(self, record: logging.LogRecord) -> None:
        self.announce(record.getMessage())


def _run_stages(plan: Plan, work: Path, conditions: Conditions) -> dict[str, Any]:
    conditions.tell(f"load {plan.recipe.model} on {conditions.device}")
    keep_recipe(plan, work)
    session = open_session(plan, conditions.registry, work, conditions.device)
    conditions.tell(
        f"calibrate on {len(session.calibration.rows)} rows of task '{session.task.name}', "
        f"{session.calibration.mean_length:.2f} tokens on average"
    )
    journal = Journal(work, _root_fingerprint(session, conditions.registry), plan.steps)
    for step in plan.steps:
        if not _restored(step, session, journal, conditions):
            _perform(step, session, journal, conditions)
    report = build_report(session)
    write_output(session, report)
    return report


def _restored(step: Step, session: Session, journal: Journal, conditions: Conditions) -> bool:
    """Put a finished step's results back; return False where there are none, or they cannot be read any more."""
    done = journal.finished(step)
    if done is None:
        return False
    try:
        steps.restore(step, session, seconds=done["seconds"], metrics=done["metrics"])
    except CompressorError as error:  # a machine that lost power may have kept the mark and lost the files
        conditions.tell(f"{step.slug} was finished before, but its files are damaged and it is done again: {error}")
        return False
    conditions.tell(f"{step.slug} was finished before ({done['seconds']:.1f} s)")
    return True


def _perform(step: Step, session: Session, journal: Journal, conditions: Conditions) -> None:
    conditions.tell(repr(step))
    journal.start(step)
    torch.manual_seed(session.seed)
    with plugin_call(step.component, f"step {step.slug}"):
        outcome: Outcome = conditions.registry.hook.compressor_run_step(step=step, session=session)
        metrics = json.loads(json.dumps(outcome.metrics, allow_nan=False))  # as a resumed run will read them
    journal.finish(step, seconds=outcome.seconds, metrics=metrics)
    steps.record(replace(outcome, metrics=metrics), session)
    conditions.tell(f"{step.slug} took {outcome.seconds:.1f} s")


def _root_fingerprint(session: Session, registry: Registry) -> str:
    """Hash what every stage depends on: the plan, and the contents of what it names."""
    config: Any = session.teacher.config
    kept = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    return chain(
        session.plan.digest,
        checkpoint.fingerprint(session.teacher),
        json.dumps(kept, sort_keys=True, default=str),
        rows_digest(session.calibration.rows),
        rows_digest(session.validation),
        str(registry.provider("family", session.family.name)),
        session.device.type,
        json.dumps(environment()["packages"], sort_keys=True),
    )


def _publish(work: Path, out: Path, *, fresh: bool) -> None:
    """Make ``out`` appear by one rename; an older one is moved aside first and removed last."""
    old = out.with_name(f"{out.name}.old-{work.name[-12:]}")
    _check_output(out, fresh=fresh)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
    work.replace(out)
    shutil.rmtree(old, ignore_errors=True)
