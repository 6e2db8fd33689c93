"""Finished runs and sweeps, read from their JSON and put side by side. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.run.documents import read_report
from compressor.verify.comparison import comparison
from compressor.verify.report import SCHEMA_VERSION

Run = tuple[str, Path, dict[str, Any]]
"""Name, directory, report."""


def compare(directories: Sequence[Path]) -> dict[str, Any]:
    """Return finished runs side by side; of a sweep, all of its points; each run once.

    Raises:
        InputError: a directory is no finished run or sweep, its JSON is damaged, or there is nothing to compare.
    """
    runs: dict[str, tuple[str, dict[str, Any]]] = {}
    seen: set[Path] = set()
    failed: list[dict[str, Any]] = []
    for directory in directories:
        found = read_report(directory)
        try:
            rows = found["rows"] if "sweep" in found else []
            lost = [{**row, "name": f"{_name(directory)}/{row['name']}"} for row in rows if row.get("error")]
            for name, place, report in _runs(directory, found):
                if place.resolve() not in seen:
                    seen.add(place.resolve())
                    runs[name if name not in runs else str(place)] = (str(place), report)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{directory}: its report is damaged: {error!r}", hint="run the recipe again") from error
        failed += lost
    if len(runs) < 2:  # noqa: PLR2004 - one has nothing beside it
        raise InputError("expected two runs or more to compare, got one", hint="compress compare DIR DIR...")
    try:
        return {"schema_version": SCHEMA_VERSION, **comparison(runs, failed)}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"a report is damaged: {error!r}", hint="compress report DIR tells which one") from error


def _runs(directory: Path, found: dict[str, Any]) -> Iterator[Run]:
    if "sweep" not in found:
        yield _name(directory), directory, found
        return
    for row in found["rows"]:
        point = directory / row["name"]
        if row.get("directory") or (point / "recipe.lock.yaml").is_file():
            yield f"{_name(directory)}/{row['name']}", point, read_report(point)


def _name(directory: Path) -> str:
    return directory.resolve().name
