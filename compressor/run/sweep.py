"""Run the points of a sweep: pruning once for all where the method can, then one ordinary run per point."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from compressor.errors import CompressorError, SetupError
from compressor.plugin.components import PruningMethod
from compressor.processes import Processes
from compressor.recipe.sweep import Point, SweepPlan
from compressor.run.calls import plugin_call, read_only
from compressor.run.documents import REPORT, SWEEP, write_documents
from compressor.run.fingerprints import stage_fingerprints
from compressor.run.journal import Journal
from compressor.run.kept import FILE, Kept
from compressor.run.load import open_session
from compressor.run.pipeline import Conditions, Finished, open_announced, run
from compressor.run.preflight import check_runtime
from compressor.run.pruning import checked_pruned
from compressor.run.session import Session
from compressor.run.workplace import Workplace, log_file
from compressor.verify.pareto import family
from compressor.verify.report import SCHEMA_VERSION, write_report

SHARED = "shared"
"""Where the prunings of all points wait while the points run."""


def run_sweep(plan: SweepPlan, out: Path, conditions: Conditions, *, fresh: bool = False) -> Finished:
    """Run every point of a sweep into a directory below ``out``, resuming a killed sweep of the same points.

    Where the points differ in the target of the *first* step, one session is opened and the method prunes for all of
    them in one call of ``prune_all``; each point is then a run that takes its pruning from there. Every file but the
    timings is what ``compress apply`` with that value writes. In any other sweep, one over the target of a later step
    among them, each point runs by itself.

    Args:
        plan: the points.
        out: the directory to make; it appears by one rename when all points are done.
        conditions: plugins, device, and who is told.
        fresh: throw away an unfinished sweep, and replace ``out`` when the new one is finished.

    Returns:
        The directory and what ``sweep.json`` holds; its schema is in ``verify/pareto.py``.

    Raises:
        CompressorError: as ``run`` does; finished points, and what is pruned already, stay for the next attempt.
    """
    place = Workplace(
        out.resolve(),
        plan.digest,
        fresh=fresh,
        mark=SWEEP,
        writer="compress sweep",
        begun=(SHARED, "*/stages"),
        finished=(f"{SHARED}/*/{FILE}", "*/stages/*/stage.json"),
    )
    if Processes.of_environment().count > 1:
        raise SetupError(
            "compress sweep runs in one process, and was started in several", hint="start it without torchrun"
        )
    place.check()
    for point in plan.points:
        check_runtime(point.plan)
    with place.opened() as work:
        sweep = _Sweep(plan, work, conditions)
        report = sweep.run()
        write_report(report, work / SWEEP)
        write_documents(report, work)
        shutil.rmtree(work / SHARED, ignore_errors=True)
    return Finished(place.out, report)


@dataclass(frozen=True)
class _Sweep:
    """A sweep at work.

    Attributes:
        plan: the points.
        work: directory to work in.
        conditions: of every run.
    """

    plan: SweepPlan
    work: Path
    conditions: Conditions

    def run(self) -> dict[str, Any]:
        """Do what is left to do; return what ``sweep.json`` holds."""
        left = self._prune_together() if self.plan.shares_pruning else self._left_alone()
        reports = {}
        for number, point in enumerate(self.plan.points, 1):
            call = f"point {number} of {len(self.plan.points)}: {self.plan.call(point)}"
            self.conditions.tell(call if point in left else f"{call} was finished before")
            if point in left:
                run(point.plan, self._directory(point), self._conditions_of(point))
            self._keep_latency_tables(point)
            reports[point.name] = json.loads((self._directory(point) / REPORT).read_text(encoding="utf-8"))
        return self._report(reports)

    def _prune_together(self) -> list[Point]:
        """Prune for every point that needs it, with one session; return the points that are not finished."""
        with log_file(self.work / "logs" / "run.log", self.conditions.announce):
            session = open_announced(self.plan.first, self.work / SHARED, self.conditions)
            journals = {point.name: self._journal(point, session) for point in self.plan.points}
            left = [point for point in self.plan.points if not self._finished(point, journals[point.name])]
            pruned = {name: journal.fingerprints[0] for name, journal in journals.items()}
            missing = [point for point in left if self._kept(point).load(pruned[point.name]) is None]
            if missing:
                self._prune(session, missing, pruned)
        return left

    def _prune(self, session: Session, missing: list[Point], fingerprints: dict[str, str]) -> None:
        step = self.plan.first.steps[0]
        method = cast("PruningMethod", step.component)
        targets = [cast("Any", point.plan.steps[0].component).target for point in missing]
        (session.run_dir / "stages" / step.slug).mkdir(parents=True, exist_ok=True)
        self.conditions.tell(f"{step.slug} for {len(missing)} points: {method!r}")
        torch.manual_seed(session.seed)
        with plugin_call(method, f"step {step.slug} of the sweep"):
            members = iter(method.prune_all(session, targets))
            for number, point in enumerate(missing):
                torch.manual_seed(session.seed)  # as a run of this point alone would
                with read_only(method, session):
                    found = next(members, None)
                if found is None:
                    raise CompressorError(f"prune_all yielded {number} of {len(missing)} results, one for each target")
                pruned = checked_pruned(found)
                others = [other.name for other in self.plan.points if other is not point]
                metrics = {**pruned.metrics, "shared_with": others}
                self._kept(point).save(replace(pruned, metrics=metrics), fingerprint=fingerprints[point.name])
                self.conditions.tell(f"{step.slug} of {point.name} is kept")

    def _left_alone(self) -> list[Point]:
        """Return the points that are not finished, of a sweep whose points run by themselves.

        All are loaded first: what the last one cannot use is said now, and not when the others are done.
        """
        left = []
        for point in self.plan.points:
            self.conditions.tell(f"check {self.plan.call(point)}")
            session = open_session(point.plan, self.conditions.registry, self.work, self.conditions.device)
            if not self._finished(point, self._journal(point, session)):
                left.append(point)
        return left

    def _finished(self, point: Point, journal: Journal) -> bool:
        """Tell whether a point is done; what is there of another model, other rows or versions is removed."""
        directory = self._directory(point)
        done = (directory / REPORT).is_file() and all(journal.finished(step) for step in point.plan.steps)
        if directory.exists() and not done:
            self.conditions.tell(f"{point.name} was finished before, with other inputs, and is done again")
            shutil.rmtree(directory)
        return done

    def _journal(self, point: Point, session: Session) -> Journal:
        fingerprints = stage_fingerprints(replace(session, plan=point.plan), self.conditions.registry)
        return Journal(self._directory(point), point.plan.steps, fingerprints)

    def _directory(self, point: Point) -> Path:
        return self.work / point.name

    def _kept(self, point: Point) -> Kept:
        return Kept(self.work / SHARED / point.name)

    def _conditions_of(self, point: Point) -> Conditions:
        shared = self.plan.shares_pruning
        return replace(self.conditions, kept={point.plan.steps[0].slug: self._kept(point)} if shared else {})

    def _keep_latency_tables(self, point: Point) -> None:
        """Copy the tables that the pruning used to where a run of its own keeps them."""
        tables = self.work / SHARED / "latency"
        if tables.is_dir():
            shutil.copytree(tables, self._directory(point) / "latency", dirs_exist_ok=True)

    def _report(self, reports: dict[str, Any]) -> dict[str, Any]:
        recipe = self.plan.first.recipe
        rows = family({point.name: (point.value, reports[point.name]) for point in self.plan.points})
        return {
            "schema_version": SCHEMA_VERSION,
            "sweep": {
                "name": recipe.name,
                "digest": self.plan.digest,
                "path": self.plan.path,
                "model": recipe.model,
                "task": self.plan.first.task.name,
            },
            "environment": next(iter(reports.values()))["environment"],
            "rows": rows,
            "passed": all(report["passed"] for report in reports.values()),
        }
