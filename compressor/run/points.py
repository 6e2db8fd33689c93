"""The jobs of a sweep: prune for several points in one call, run one point. They may be done in another process."""

from __future__ import annotations

import gc
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from compressor.errors import CompressorError, SetupError, memory_ran_out
from compressor.plugin.components import PruningMethod
from compressor.recipe.sweep import Point, SweepPlan
from compressor.run.calls import plugin_call, read_only
from compressor.run.journal import STAGES, TABLES
from compressor.run.kept import Kept
from compressor.run.pipeline import Conditions, open_announced, run
from compressor.run.pruning import checked_pruned
from compressor.run.session import Session
from compressor.run.workplace import log_file

EXPECTED = (CompressorError, MemoryError, OSError, RuntimeError)
"""What a job may end with that is no bug; the last two where memory ran out: torch and the system say it so."""
SHARED = "shared"
"""Where prunings that were done together wait while the points run."""


@dataclass(frozen=True)
class Failure:
    """Why a point has no result, as plain data: the kind of the error, what it says, and its exit code."""

    kind: str
    message: str
    exit_code: int

    @classmethod
    def of(cls, error: CompressorError) -> Failure:
        """Return what stands in the table."""
        return cls(type(error).__name__, error.message, error.exit_code)


@dataclass(frozen=True)
class Member:
    """A pruning to do: for which point, the fingerprint of everything that it depends on, and where it is kept."""

    point: str
    fingerprint: str
    kept: Path


@dataclass(frozen=True)
class PruneJob:
    """Prunings that one call does.

    Attributes:
        name: of the job, and of its directory below ``shared``, which holds latency tables.
        members: what is missing.
        family: names of all points that the method prunes for together.
    """

    name: str
    members: tuple[Member, ...]
    family: tuple[str, ...]
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PointJob:
    """The run of one point.

    Attributes:
        name: of the point.
        kept: where the pruning of its first step waits, if it was done together with others.
        tables: the directory of the job that pruned.
        after: names of jobs whose results it takes.
    """

    name: str
    kept: Path | None = None
    tables: Path | None = None
    after: frozenset[str] = frozenset()


Job = PruneJob | PointJob


@dataclass(frozen=True)
class Site:
    """A sweep and the directory that it works in; what does its jobs.

    Attributes:
        plan: the points.
        work: directory to work in.
        conditions: of every run.
        elsewhere: directories of unfinished sweeps that nobody is at work in.
    """

    plan: SweepPlan
    work: Path
    conditions: Conditions
    elsewhere: tuple[Path, ...] = ()

    def point(self, name: str) -> Point:
        """Return the point of this name."""
        return next(point for point in self.plan.points if point.name == name)

    def neighbours(self, busy: Iterable[str] = ()) -> tuple[Path, ...]:
        """Return run directories whose leading stages may be the same as a point's.

        Args:
            busy: points that are at work now.
        """
        names = tuple(busy)
        own = [
            path
            for path in sorted(self.work.iterdir())
            if not any(path.name == name or path.name.startswith(f"{name}.") for name in names)
        ]
        others = [path for place in self.elsewhere for path in sorted(place.iterdir())]
        return tuple(path for path in (*own, *others) if path.name != SHARED and (path / STAGES).is_dir())

    def perform(self, job: Job, beside: tuple[Path, ...] = ()) -> dict[str, Failure]:
        """Do a job; return why points failed, by name. What concerns all points is raised.

        Args:
            job: of this sweep.
            beside: run directories whose leading stages a point may take over.

        Raises:
            CompressorError: the environment lacks something, or the disk is full.
        """
        if isinstance(job, PruneJob):
            with log_file(self.work / "logs" / "run.log", self.conditions.announce):
                return dict(self._prune(job))
        point = self.point(job.name)
        kept = {} if job.kept is None else {point.plan.steps[0].slug: Kept(job.kept)}
        conditions = replace(self.conditions, kept=kept, beside=beside, keep_stages=True)
        try:
            run(point.plan, self.work / point.name, conditions)
        except EXPECTED as error:
            return {job.name: _failed(error)}
        return {}

    def keep_tables(self, job: PointJob) -> None:
        """Copy the latency tables that the pruning used to where a run of its own keeps them."""
        for path in sorted((job.tables / TABLES).glob("*")) if job.tables else ():
            mine = self.work / job.name / TABLES / path.name
            mine.parent.mkdir(exist_ok=True)
            if not mine.exists():
                shutil.copy2(path, mine)

    def _prune(self, job: PruneJob) -> Iterator[tuple[str, Failure]]:
        """Prune for all members in one call; one by one where that fails, to know for which of them it does."""
        first = self.point(job.family[0]).plan
        session = open_announced(first, self.work / SHARED / job.name, self.conditions)
        (session.run_dir / STAGES / first.steps[0].slug).mkdir(parents=True, exist_ok=True)
        try:
            self._prune_together(session, job, job.members)
        except EXPECTED as error:
            failure = _failed(error)
            left = [one for one in job.members if Kept(one.kept).load(one.fingerprint) is None]
            if len(job.members) == 1:
                yield job.members[0].point, failure
                return
            self.conditions.tell(f"{failure.message}; what is missing is pruned for one point at a time")
            for member in left:
                try:
                    self._prune_together(session, job, [member])
                except EXPECTED as alone:
                    yield member.point, _failed(alone)

    def _prune_together(self, session: Session, job: PruneJob, members: Sequence[Member]) -> None:
        step = session.plan.steps[0]
        method = cast("PruningMethod", step.component)
        targets = [cast("Any", self.point(member.point).plan.steps[0].component).target for member in members]
        self.conditions.tell(f"{step.slug} for {len(members)} points: {method!r}")
        torch.manual_seed(session.seed)
        with plugin_call(method, f"step {step.slug} of the sweep"):
            results = iter(method.prune_all(session, targets))
            for number, member in enumerate(members):
                torch.manual_seed(session.seed)  # as a run of this point alone would
                with read_only(method, session):
                    found = next(results, None)
                if found is None:
                    raise CompressorError(f"prune_all yielded {number} of {len(members)} results, one for each target")
                pruned = checked_pruned(found)
                others = [name for name in job.family if name != member.point]
                metrics: Mapping[str, Any] = {**pruned.metrics, "shared_with": others}
                Kept(member.kept).save(replace(pruned, metrics=metrics), fingerprint=member.fingerprint)
                self.conditions.tell(f"{step.slug} of {member.point} is kept")


def _failed(error: Exception) -> Failure:
    """Return the failure of a point; what would happen to all of them, and what is a bug, is raised again.

    Where memory ran out, what the point held is let go: the next one may need less.
    """
    if memory_ran_out(error):
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        torch.cuda.empty_cache()
        said = str(error).strip().partition("\n")[0]
        return Failure(type(error).__name__, f"memory ran out{': ' * bool(said)}{said}", SetupError.exit_code)
    if isinstance(error, SetupError) or not isinstance(error, CompressorError):
        raise error
    return Failure.of(error)
