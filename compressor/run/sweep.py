"""Run the points of a sweep: what is shared once, then one ordinary run per point; a failed point stops no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError, InputError, SetupError
from compressor.processes import Processes
from compressor.recipe.sweep import Point, SweepPlan
from compressor.run.agenda import Agenda, agenda
from compressor.run.cluster import Cluster, connected
from compressor.run.documents import REPORT, SWEEP, write_documents
from compressor.run.kept import FILE
from compressor.run.output import drop_duplicates
from compressor.run.pipeline import Conditions, Finished
from compressor.run.points import SHARED, Failure, Site
from compressor.run.preflight import check_runtime
from compressor.run.workplace import Workplace
from compressor.verify.pareto import failed_row, family
from compressor.verify.report import SCHEMA_VERSION, write_report


def run_sweep(
    plan: SweepPlan, out: Path, conditions: Conditions, *, fresh: bool = False, ray: str | None = None
) -> Finished:
    """Run every point of a sweep into a directory below ``out``, resuming a killed sweep of the same points.

    Points that differ in the target of their *first* step alone are pruned for in one call of ``prune_all``; each point
    is then a run that takes its pruning from there. Leading stages that are the same are done once: a point takes them
    over from another one, of this sweep or of an unfinished one of other points. Every file but the timings is what
    ``compress apply`` with the point's values writes.

    Args:
        plan: the points.
        out: the directory to make; it appears by one rename when all points are done.
        conditions: plugins, device, and who is told.
        fresh: throw away an unfinished sweep, and replace ``out`` when the new one is finished.
        ray: address of a Ray cluster whose nodes do the jobs; None = this process does.

    Returns:
        The directory and what ``sweep.json`` holds; its schema is in ``verify/pareto.py``. Points that failed are in it
        with their reasons; the same call tries them again, and leaves the others as they are.

    Raises:
        CompressorError: as ``run`` does of what concerns all points, or no point could be finished, or points that are
            tried again were to stand beside ones of other inputs or versions; finished points, and what is pruned
            already, stay for the next attempt.
    """
    place = Workplace(
        out.resolve(),
        plan.digest,
        fresh=fresh,
        mark=SWEEP,
        writer="compress sweep",
        begun=(SHARED, "*/stages"),
        finished=(f"{SHARED}/*/{FILE}", "*/stages/*/stage.json"),
        again=lambda directory: _incomplete(directory, plan),
    )
    if Processes.of_environment().count > 1:
        raise SetupError(
            "compress sweep runs in one process, and was started in several", hint="start it without torchrun"
        )
    if fresh or not place.again(place.out):
        place.check()
    for point in plan.points:
        check_runtime(point.plan)
    with connected(ray) as cluster, place.opened() as work:
        others = tuple(path for path in place.unfinished() if path.is_dir())
        report = _Sweep(Site(plan, work, conditions, others), cluster).run()
        write_report(report, work / SWEEP)
        write_documents(report, work)
        for point in plan.points:
            if (work / point.name).is_dir():
                drop_duplicates(work / point.name)
        shutil.rmtree(work / SHARED, ignore_errors=True)
    return Finished(place.out, report)


def _incomplete(out: Path, plan: SweepPlan) -> bool:
    """Tell whether a finished sweep of the same points has some that failed."""
    try:
        report = json.loads((out / SWEEP).read_text(encoding="utf-8"))
        return report["sweep"]["digest"] == plan.digest and any(row.get("error") for row in report["rows"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@dataclass(frozen=True)
class _Sweep:
    """A sweep at work.

    Attributes:
        site: the points and where they run.
        cluster: whose nodes do the jobs; None = this process does.
    """

    site: Site
    cluster: Cluster | None

    def run(self) -> dict[str, Any]:
        """Do what is left to do; return what ``sweep.json`` holds."""
        todo = agenda(self.site)
        failures: dict[str, Failure] = {}
        for name, failure in self._on_cluster(todo) if self.cluster else self._here(todo):
            failures[name] = failure
            self.site.conditions.tell(f"{name} FAILED: {failure.message}")
        for job in todo.points.values():
            if job.name not in failures:
                self.site.keep_tables(job)
        return self._report(failures)

    def _here(self, todo: Agenda) -> Iterator[tuple[str, Failure]]:
        """Do all jobs in this process, one after the other."""
        lost: dict[str, Failure] = {}
        for pruning in todo.prunings:
            lost |= todo.spread(self.site.perform(pruning))
        yield from lost.items()
        for number, point in enumerate(self.site.plan.points, 1):
            if point.name not in lost:
                self._announce(number, point, todo)
                if point.name in todo.left:
                    yield from self.site.perform(todo.points[point.name], self.site.neighbours()).items()

    def _on_cluster(self, todo: Agenda) -> Iterator[tuple[str, Failure]]:
        """Let the nodes of the cluster do the jobs."""
        if self.cluster is None:
            return
        for number, point in enumerate(self.site.plan.points, 1):
            if point.name not in todo.left:
                self._announce(number, point, todo)
        yield from self.cluster.perform(self.site, todo)

    def _announce(self, number: int, point: Point, todo: Agenda) -> None:
        call = f"point {number} of {len(self.site.plan.points)}: {point.call}"
        self.site.conditions.tell(call if point.name in todo.left else f"{call} was finished before")

    def _report(self, failures: Mapping[str, Failure]) -> dict[str, Any]:
        plan = self.site.plan
        done = [point for point in plan.points if point.name not in failures]
        if not done:
            raise _none_finished(failures)
        reports = {p.name: json.loads((self.site.work / p.name / REPORT).read_text(encoding="utf-8")) for p in done}
        rows = family({point.name: (point.settings, reports[point.name]) for point in done})
        lost = [
            failed_row(p.name, settings=p.settings, error=asdict(failures[p.name]))
            for p in plan.points
            if p.name in failures
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "sweep": {
                "name": plan.first.recipe.name,
                "digest": plan.digest,
                "path": plan.path,
                "model": plan.first.recipe.model,
                "task": plan.first.task.name,
            },
            "environment": reports[done[0].name]["environment"],
            "rows": [*rows, *lost],
            "passed": not lost and all(report["passed"] for report in reports.values()),
        }


def _none_finished(failures: Mapping[str, Failure]) -> CompressorError:
    """Return the error of a sweep without a single result; its exit code is the first point's."""
    reasons = list(dict.fromkeys(failure.message for failure in failures.values()))
    first = next(iter(failures.values()))
    message = reasons[0] if len(reasons) == 1 else "\n".join(f"{name}: {one.message}" for name, one in failures.items())
    error = InputError(f"no point of the sweep could be finished: {message}")
    error.exit_code = first.exit_code
    return error
