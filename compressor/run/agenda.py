"""What a sweep has to do: every point is checked against its model and rows first, what is done already is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError, InputError, RecipeError, SetupError
from compressor.model import max_positions
from compressor.recipe.reads import trains_head, what_is_read
from compressor.recipe.sweep import Point
from compressor.run.documents import REPORT, SWEEP
from compressor.run.fingerprints import stage_fingerprints
from compressor.run.journal import Journal, link
from compressor.run.kept import FILE, Kept
from compressor.run.load import open_session
from compressor.run.points import SHARED, Failure, Job, Member, PointJob, PruneJob, Site
from compressor.run.preflight import check_lengths, check_method, check_training, tasks_read
from compressor.run.workplace import log_file
from compressor.verify.environment import versions

Fingerprints = Mapping[str, tuple[str, ...]]
"""Of every stage of every point, by its name."""


@dataclass(frozen=True)
class Agenda:
    """The jobs of a sweep.

    Attributes:
        prunings: to do before the points that take them.
        points: of all points, by name.
        left: names of those that are not finished.
        fingerprints: of their stages.
    """

    prunings: tuple[PruneJob, ...]
    points: Mapping[str, PointJob]
    left: frozenset[str]
    fingerprints: Fingerprints

    @property
    def jobs(self) -> list[Job]:
        """What is left to do, in an order in which it can be done."""
        return [*self.prunings, *(job for name, job in self.points.items() if name in self.left)]

    def spread(self, failures: Mapping[str, Failure]) -> dict[str, Failure]:
        """Return failures of prunings as those of every point that takes them."""
        first = {self.fingerprints[name][0]: failure for name, failure in failures.items()}
        return {name: first[self.fingerprints[name][0]] for name in self.points if self.fingerprints[name][0] in first}


def agenda(site: Site) -> Agenda:
    """Check all points, find what is done already, here or in an unfinished sweep of other points, and plan the rest.

    Raises:
        CompressorError: points cannot be run with their models and rows; all of them are named.
        InputError: points that were published have other inputs now, and would have to be done again with the rest.
    """
    with log_file(site.work / "logs" / "run.log", site.conditions.announce):
        fingerprints = _checked(site)
        journals = [
            (point, Journal(site.work / point.name, point.plan.steps, fingerprints[point.name]))
            for point in site.plan.points
        ]
        undone = [(point, journal) for point, journal in journals if not _is_done(journal)]
        _check_published(site, [point.name for point, _ in undone])
        left = frozenset(point.name for point, journal in undone if not _taken_over(site, point, journal))
        kept = dict(_places(site, fingerprints))
        prunings = tuple(_prunings(site, fingerprints, left, kept))
    supplied = {member.fingerprint: job.name for job in prunings for member in job.members}
    points: dict[str, PointJob] = {}
    for number, point in enumerate(site.plan.points):
        mine = fingerprints[point.name]
        place, tables = kept.get(mine[0], (None, None))
        after = {supplied[mine[0]]} if mine[0] in supplied else set()
        for other in site.plan.points[:number]:
            if other.name in left and _common(mine, fingerprints[other.name]) > (place is not None):
                after.add(other.name)
                break
        points[point.name] = PointJob(point.name, place, tables, frozenset(after))
    return Agenda(prunings, points, left, fingerprints)


def _checked(site: Site) -> dict[str, tuple[str, ...]]:
    """Return the fingerprints of all points; what the last of them cannot use is said before the first one runs.

    A model and its rows are loaded once for all points that have the same.
    """
    alike: dict[str, list[Point]] = {}
    for point in site.plan.points:
        alike.setdefault(_inputs(point), []).append(point)
    found: dict[str, tuple[str, ...]] = {}
    errors: list[CompressorError] = []
    for points in alike.values():
        plan, others = points[0].plan, f" and {len(points) - 1} more" * (len(points) > 1)
        site.conditions.tell(f"check {points[0].call}{others}: load {plan.recipe.model} on {site.conditions.device}")
        try:
            session = open_session(plan, site.conditions.registry, site.work, site.conditions.device)
        except CompressorError as error:
            errors.append(error)
            continue
        for point in points:
            try:
                check_lengths(point.plan, max_positions(session.model))
                check_training(point.plan, site.conditions.device)
                check_method(point.plan, session)
                found[point.name] = stage_fingerprints(replace(session, plan=point.plan), site.conditions.registry)
            except CompressorError as error:
                errors.append(error)
    if errors:
        raise _together(errors)
    return found


def _inputs(point: Point) -> str:
    """Return what decides what is loaded."""
    resolved = point.plan.resolved()
    named = {name: resolved[name] for name in ("model", "revision", "task", "calibration", "seed")}
    steps = point.plan.steps
    read = {step.slug: [[task.name, task.options()] for task in tasks_read(step, point.plan)] for step in steps}
    return json.dumps([named, trains_head(steps), what_is_read(steps), read], sort_keys=True)


def _together(errors: Sequence[CompressorError]) -> CompressorError:
    """Return one error that says what all of them say."""
    first = next((error for error in errors if isinstance(error, SetupError)), errors[0])
    if len({str(error) for error in errors}) == 1 or isinstance(first, SetupError):
        return first
    if all(isinstance(error, RecipeError) for error in errors):
        return RecipeError(
            dict.fromkeys(p for error in errors if isinstance(error, RecipeError) for p in error.problems)
        )
    return InputError("\n".join(dict.fromkeys(str(error) for error in errors)))


def _check_published(site: Site, undone: Sequence[str]) -> None:
    """Refuse to do again what was published: a sweep that is tried again is given the points that it lacks, no others.

    Raises:
        InputError: points that its table has were made of something else; says which versions differ, if any.
    """
    published = [name for name in undone if name in _published(site.work / SWEEP) and (site.work / name).exists()]
    if not published:
        return
    then = _read(site.work / published[0] / REPORT, "environment", "packages") or {}
    now = versions()
    other = [f"{name} {then.get(name)}, now {now.get(name)}" for name in now if then.get(name) != now.get(name)]
    raise InputError(
        f"{', '.join(published)}: made with other inputs or versions than are here now"
        f"{': ' * bool(other)}{'; '.join(other)}; what was published is not done again",
        hint="install what it was made with to add the points that failed, choose another directory with -o, "
        "or --fresh to replace all points",
    )


def _published(sweep: Path) -> set[str]:
    """Return the points that the table of a finished sweep has results of; none where it is none."""
    return {row["directory"] for row in _read(sweep, "rows") or () if row.get("directory")}


def _taken_over(site: Site, point: Point, journal: Journal) -> bool:
    """Take a point over from an unfinished sweep, if one has it; what is there of other inputs makes way."""
    if journal.run_dir.exists():
        site.conditions.tell(f"{point.name} was finished before, with other inputs, and is done again")
        shutil.rmtree(journal.run_dir)
    for place in site.elsewhere:
        for report in sorted(place.glob(f"*/{REPORT}")):
            other = replace(journal, run_dir=report.parent)
            asked = _read(report, "recipe", "digest")
            if asked == point.plan.digest and _is_done(other) and not any(map(other.damaged, other.steps)):
                site.conditions.tell(f"{point.name} is taken over from {place.name}")
                _linked(other.run_dir, journal.run_dir)
                return True
    return False


def _is_done(journal: Journal) -> bool:
    return (journal.run_dir / REPORT).is_file() and all(journal.finished(step) for step in journal.steps)


def _read(file: Path, *path: str) -> Any:
    """Return what a JSON file has at a path; None where there is no such file, or it has nothing there."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for name in path:
            found = found[name]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _linked(source: Path, place: Path) -> None:
    """Make a finished directory appear under another name, by one rename."""
    draft = place.with_name(f"{place.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=link)
    draft.replace(place)


def _places(site: Site, fingerprints: Fingerprints) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Yield where prunings that are done together are kept, and where their latency tables are, by fingerprint."""
    seen: set[str] = set()
    for number, family in enumerate(site.plan.families, 1):
        for point in family:
            first = fingerprints[point.name][0]
            if first not in seen:
                seen.add(first)
                yield first, (site.work / SHARED / point.name, site.work / SHARED / f"family-{number}")


def _prunings(
    site: Site, fingerprints: Fingerprints, left: frozenset[str], kept: Mapping[str, tuple[Path, Path]]
) -> Iterator[PruneJob]:
    """Yield a job for every family of which prunings are missing; what several families need, the first one does."""
    done: set[str] = set()
    for number, family in enumerate(site.plan.families, 1):
        members = []
        for point in family:
            first = fingerprints[point.name][0]
            if point.name in left and first not in done:
                done.add(first)
                member = Member(point.name, first, kept[first][0])
                if not _is_kept(member, member.kept) and not _kept_from_elsewhere(site, member):
                    members.append(member)
        if members:
            yield PruneJob(f"family-{number}", tuple(members), tuple(point.name for point in family))


def _is_kept(member: Member, place: Path) -> bool:
    """Tell whether a pruning is done already, and lies at a place."""
    return Kept(place).load(member.fingerprint) is not None


def _kept_from_elsewhere(site: Site, member: Member) -> bool:
    """Take a pruning over from an unfinished sweep of other points, if one has it."""
    for place in site.elsewhere:
        for file in sorted(place.glob(f"{SHARED}/*/{FILE}")):
            if _is_kept(member, file.parent):
                shutil.rmtree(member.kept, ignore_errors=True)
                member.kept.parent.mkdir(exist_ok=True)
                _linked(file.parent, member.kept)
                return True
    return False


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many leading stages are the same."""
    return next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
