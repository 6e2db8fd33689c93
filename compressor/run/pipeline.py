"""Run a plan: load, calibrate, one hook call per step, and the finished directory by one rename."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from compressor.plugin.components import Pruned
from compressor.plugin.registry import Registry
from compressor.processes import Processes
from compressor.recipe.lock import Lock
from compressor.recipe.plan import Plan, Step
from compressor.recipe.replay import check_locked
from compressor.run import steps
from compressor.run.calls import plugin_call
from compressor.run.facts import as_locked, facts_of, places
from compressor.run.fingerprints import stage_fingerprints
from compressor.run.journal import TABLES, Journal
from compressor.run.kept import Kept
from compressor.run.load import open_session
from compressor.run.output import build_report, drop_duplicates, keep_recipe, write_output
from compressor.run.parallel import hear, is_shared, meet, tell, together
from compressor.run.preflight import check_method, check_runtime
from compressor.run.session import Outcome, Session
from compressor.run.workplace import Announce, Workplace, log_file, logger

CORE = "compressor.run.steps"
"""Name of the core's own hook implementation among the plugins."""


@dataclass(frozen=True)
class Conditions:
    """What a run runs with.

    Attributes:
        registry: the installed plugins, whose ``compressor_run_step`` hooks are called.
        device: where the model and the calibration batches go.
        announce: told one line per stage.
        locked: the lock file that is replayed: nothing starts unless the run is the one that was locked.
        kept: prunings that a sweep has done already, by the slug of the step; taken where they are of the same
            fingerprint, so they change nothing but the time that the step takes.
        beside: run directories that nobody is at work in, whose leading stages may be taken over: other points of a sweep.
        keep_stages: whether the finished directory keeps what a stage has for resuming, so that others can take it over.
    """

    registry: Registry
    device: torch.device
    announce: Announce = lambda _: None
    locked: Lock | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()
    keep_stages: bool = False

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

    @property
    def reproduced(self) -> bool:
        """Whether a replay made the bytes that were locked; True of what is no replay."""
        return bool(self.report.get("replay", {"reproduced": True})["reproduced"])


def run(plan: Plan, out: Path, conditions: Conditions, *, fresh: bool = False) -> Finished:
    """Run a plan into the directory ``out``, resuming a killed run of the same plan.

    Work happens in ``out.partial-<digest>`` beside it; ``out`` appears by one rename when everything is done. Leading
    stages that an unfinished run of another plan has finished already, with the same inputs and options, are taken over.

    Args:
        plan: what to do.
        out: the directory to make.
        conditions: plugins, device, and who is told.
        fresh: throw away an unfinished run, and replace ``out`` when the new one is finished.

    Raises:
        InputError: ``out`` exists, or cannot be made, or another process is at work on the same run.
        SetupError: onnxruntime or the asked provider is missing, or the disk is full.
        CompressorError: a step cannot be done; finished stages stay for the next attempt.
    """
    place = Workplace(out.resolve(), plan.digest, fresh=fresh)
    processes = Processes.of_environment()
    check_runtime(plan)
    if conditions.locked is not None:
        plan = as_locked(plan, conditions.locked.facts)
    if CORE not in {plugin.entry_point for plugin in conditions.registry.plugins}:
        conditions.registry.register(steps, CORE)
    with together(processes):
        if not processes.writes:
            return Finished(place.out, _follow(plan, conditions))
        place.check()
        with place.opened() as work, log_file(work / "logs" / "run.log", conditions.announce):
            report = _run_stages(plan, place, conditions)
        if not conditions.keep_stages:
            drop_duplicates(place.out)
        tell(processes, "done", report)
    return Finished(place.out, report)


def _follow(plan: Plan, conditions: Conditions) -> dict[str, Any]:
    """Take part in a run that the first process leads; return its report."""
    session: Session | None = None
    while True:
        message, *given = hear()
        if message == "done":
            report: dict[str, Any] = given[0]
            return report
        if message == "meet":
            meet(Processes.of_environment())
            continue
        if session is None:
            session = open_session(plan, conditions.registry, Path(given[0]), conditions.device)
            continue
        step = plan.steps[given[0]]
        if message == "join":
            torch.manual_seed(session.seed)
            steps.join(step, session)
        else:
            steps.restore(step, session, seconds=given[1], metrics=given[2])


def open_announced(plan: Plan, run_dir: Path, conditions: Conditions) -> Session:
    """Load and calibrate, and say so.

    Raises:
        CompressorError: something that the plan names cannot be used.
    """
    conditions.tell(f"load {plan.recipe.model} on {conditions.device}")
    session = open_session(plan, conditions.registry, run_dir, conditions.device)
    check_method(plan, session)
    conditions.tell(
        f"calibrate on {len(session.calibration.rows)} rows of task '{session.task.name}', "
        f"{session.calibration.mean_length:.2f} tokens on average"
    )
    return session


def _run_stages(plan: Plan, place: Workplace, conditions: Conditions) -> dict[str, Any]:
    work = place.work
    keep_recipe(plan, work)
    processes = Processes.of_environment()
    tell(processes, "open", str(work))
    opened = open_announced(plan, work, conditions)
    facts = facts_of(opened)  # now: what a run trains becomes its dense model
    if conditions.locked is not None:
        _check_replay(conditions.locked, opened.plan, facts, conditions)
        if (tables := conditions.locked.path.parent / TABLES).is_dir():  # latency is decided by those beside the lock
            shutil.copytree(tables, work / TABLES, dirs_exist_ok=True)
    journal = Journal(work, plan.steps, stage_fingerprints(opened, conditions.registry))
    session = replace(opened, given=_given(journal, conditions))
    other = (
        None if conditions.locked else journal.take_over([*place.unfinished(), *conditions.beside])
    )  # a replay decides by its lock's tables
    if other is not None:
        conditions.tell(f"go on from {other.name}, whose first steps are the same")
    for step in plan.steps:
        if not _restored(step, session, journal, conditions):
            _perform(step, session, journal, conditions)
        outcome = session.outcomes[-1]
        tell(processes, "restore", step.index, outcome.seconds, outcome.metrics)
    tell(processes, "meet")
    meet(processes)  # the others read from this directory, which is renamed next
    report = write_output(session, build_report(session), facts, conditions.locked)
    _tell_replay(report, conditions)
    return report


def _check_replay(lock: Lock, plan: Plan, facts: Mapping[str, Any], conditions: Conditions) -> None:
    """Refuse what is not as it was locked."""
    for note in check_locked(lock, facts, files=list(places(plan))):
        conditions.tell(f"note: not as locked, which refuses no replay: {note}")


def _tell_replay(report: dict[str, Any], conditions: Conditions) -> None:
    replay = report.get("replay", {"outputs": {}, "changed": {}})
    for name, digest in replay["outputs"].items():
        if name not in replay["changed"]:
            conditions.tell(f"reproduced {name}, byte for byte: sha256 {digest}")
    for name, pair in replay["changed"].items():
        conditions.tell(f"NOT reproduced: {name}: sha256 locked {pair['locked']}, present {pair['present']}")


def _given(journal: Journal, conditions: Conditions) -> dict[str, Pruned]:
    """Return the prunings that a sweep has done already for these steps with these inputs."""
    kept = ((step, conditions.kept[step.slug]) for step in journal.steps if step.slug in conditions.kept)
    found = {step.slug: each.load(journal.fingerprints[step.index]) for step, each in kept}
    return {slug: pruned for slug, pruned in found.items() if pruned is not None}


def _restored(step: Step, session: Session, journal: Journal, conditions: Conditions) -> bool:
    """Put a finished step's results back; return False where there are none, or they cannot be read any more."""
    done = journal.finished(step)
    if done is None:
        return False
    damaged = journal.damaged(step)  # a machine that lost power may have kept the mark and lost the files
    if damaged:
        conditions.tell(f"{step.slug} is done again: it was finished before, and is damaged: {', '.join(damaged)}")
        return False
    steps.restore(step, session, seconds=done["seconds"], metrics=done["metrics"])
    journal.forget_checkpoints(step)
    conditions.tell(f"{step.slug} was finished before ({done['seconds']:.1f} s)")
    return True


def _perform(step: Step, session: Session, journal: Journal, conditions: Conditions) -> None:
    conditions.tell(repr(step))
    journal.start(step)
    if is_shared(step) and step.slug not in session.given:
        tell(Processes.of_environment(), "join", step.index)
    torch.manual_seed(session.seed)
    with plugin_call(step.component, f"step {step.slug}"):
        outcome: Outcome = conditions.registry.hook.compressor_run_step(step=step, session=session)
        metrics = json.loads(json.dumps(outcome.metrics, allow_nan=False))  # as a resumed run will read them
    journal.finish(step, seconds=outcome.seconds, metrics=metrics)
    steps.record(replace(outcome, metrics=metrics), session)
    conditions.tell(f"{step.slug} took {outcome.seconds:.1f} s")
