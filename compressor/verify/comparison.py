"""Finished runs side by side: one row each, and what makes their figures incomparable. Plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compressor.verify.pareto import NAME, cells, family, filled, judged_by, machine, notes
from compressor.verify.section import Data, Section, shown, without_paths

NAMED = 3
"""Most runs that a warning names of each kind."""


def comparison(runs: Mapping[str, tuple[str, Data]], failed: Sequence[Data] = ()) -> dict[str, Any]:
    """Return the rows of finished runs, as those of a sweep, with how each was made; and warnings.

    Args:
        runs: directory and report of every run, by name.
        failed: rows of points that have none.

    Returns:
        ``compare`` (directories), ``rows`` (as ``pareto.row`` makes them; those of runs with ``model``, ``task``,
        ``recipe_digest``, ``steps``, ``cpu``, ``usable_cores``, ``packages`` too), ``warnings``.
    """
    rows = family({name: ({}, report) for name, (_, report) in runs.items()})
    made = {name: {"directory": place, **_made(report)} for name, (place, report) in runs.items()}
    return {
        "compare": {"directories": [place for place, _ in runs.values()]},
        "rows": [*({**one, **made.get(one["name"], {})} for one in rows), *failed],
        "warnings": list(_warnings({name: report for name, (_, report) in runs.items()})),
    }


def _made(report: Data) -> dict[str, Any]:
    recipe, environment = report["recipe"], report.get("environment") or {}
    return {
        "model": shown(recipe["model"]),
        "task": recipe["task"]["name"],
        "recipe_digest": recipe["digest"],
        "steps": " > ".join(without_paths(step.get("call", step["slug"])) for step in report.get("steps") or ()),
        "cpu": environment.get("cpu"),
        "usable_cores": environment.get("usable_cores"),
        "packages": environment.get("packages") or {},
    }


def _warnings(reports: Mapping[str, Data]) -> Iterator[str]:
    """Yield what differs between runs and should not where figures are compared."""
    weights = {name: report["inputs"].get("weights_sha256") for name, report in reports.items()}
    rows = {name: (report.get("quality") or {}).get("rows_sha256") for name, report in reports.items()}
    metrics = {name: judged_by(report.get("quality") or {}) for name, report in reports.items()}
    tasks = {name: report["recipe"]["task"]["name"] for name, report in reports.items()}
    machines = {name: machine(report.get("environment") or {}) for name, report in reports.items()}
    yield from _differing("compressed from different weights: changes are against different dense models", weights)
    yield from _differing("different tasks: metrics cannot be compared", tasks, tell=True)
    yield from _differing("judged by different metrics, which cannot be compared", metrics, tell=True)
    yield from _differing("judged on different rows: metrics cannot be compared", rows)
    cpus = {name: f"{found[0]}, {found[2]} cores usable" for name, found in machines.items()}
    told = len(set(cpus.values())) > 1
    yield from _differing(
        "timed on different machines: latencies cannot be compared", cpus if told else machines, tell=told
    )
    packages = {name: (report.get("environment") or {}).get("packages") or {} for name, report in reports.items()}
    for package in dict.fromkeys(package for found in packages.values() for package in found):
        found = {name: versions.get(package, "none") for name, versions in packages.items()}
        yield from _differing(f"made with different versions of {package}", found, tell=True)


def _differing(what: str, found: Mapping[str, Any], *, tell: bool = False) -> Iterator[str]:
    """Yield what differs, with the runs that have each value, unless all have one; None is no value."""
    groups: dict[Any, list[str]] = {}
    for name, value in found.items():
        if value is not None:
            groups.setdefault(value, []).append(name)
    if len(groups) > 1:
        parts = [f"{value} ({_some(names)})" if tell else _some(names) for value, names in groups.items()]
        yield f"{what}: {'; '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def comparison_sections(report: Data) -> Iterator[Section]:
    """Yield the tables of compared runs in parts that fit a narrow screen."""
    if "compare" not in report:
        return
    rows = report["rows"]
    size, quality, latency, verdict = cells(rows)
    parts = {"size and front": {**size, **verdict}, "quality": quality, "latency, ratio to each one's dense": latency}
    remarks = notes(rows)
    for name, part in parts.items():
        columns, lines = filled({**NAME, **part}, rows)
        if len(columns) > 1:
            yield Section(f"Compared: {name}", columns, lines, remarks.get(name, ()))
    made = [row for row in rows if "steps" in row]
    yield Section(
        "Compared: how they were made", ("run", "from", "steps"), [(r["name"], r["model"], r["steps"]) for r in made]
    )
    places = {row["name"]: (f"{row['cpu']}, {row['usable_cores']} cores usable", _packages(row, made)) for row in made}
    if len(set(places.values())) == 1:
        places = {"all": next(iter(places.values()))}
    yield Section("Compared: where", ("run", "machine", "packages"), [(name, *words) for name, words in places.items()])


def _packages(row: Data, rows: Sequence[Data]) -> str:
    """Return the versions that differ between runs, or those that matter most where none does."""
    differing = {name for name in row["packages"] if len({one["packages"].get(name) for one in rows}) > 1}
    shown_ones = differing or {"compressor-onnx", "torch", "onnxruntime"}
    return ", ".join(f"{name} {version}" for name, version in row["packages"].items() if name in shown_ones)
