"""The points of a sweep, or runs that are compared, as a csv: one row each, one figure in a cell. Plain data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from compressor.verify.section import Data, setting

FIGURES = ("encoder_macs", "parameters", "bytes", "metric", "score", "difference", "kl", "agreement")
"""What a row has beside its latencies; ``difference`` has an interval."""


def spreadsheet(report: Data) -> str:
    """Return the csv of everything that a directory belongs to; without the dense models, whose ratios are 1.

    A column of latency is named by batch, length and what ran it: ``latency_1x128_1_thread``.
    """
    rows = [dict(_cells(row)) for row in report["rows"] if row.get("directory") or row.get("error")]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in LAST))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *LAST], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


LAST = ("gates", "pareto", "directory", "failure")
"""Columns that come after those that a single row may lack."""


def _cells(row: Data) -> Iterator[tuple[str, Any]]:
    yield "name", row["name"]
    for name in ("model", "task", "steps", "cpu", "usable_cores"):
        if name in row:
            yield name, row[name]
    for path, value in (row.get("settings") or {}).items():
        yield path, value if isinstance(value, str) else json.dumps(value)
    for name in FIGURES:
        yield from _figure(name, row[name])
    for one in row["latency"]:
        yield from _figure(f"latency_{one['batch']}x{one['sequence']}_{setting(one).replace(' ', '_')}", one["ratio"])
    yield "gates", row["verdict"]
    yield "pareto", "" if row.get("pareto") is None else json.dumps(row["pareto"])
    yield "directory", row.get("directory")
    yield "failure", (row.get("error") or {}).get("message")


def _figure(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield one column, or three of a figure with an interval."""
    spread = value if isinstance(value, Mapping) else {"value": value}
    yield name, spread["value"]
    if name == "difference" or isinstance(value, Mapping):
        yield f"{name}_lower", spread.get("lower")
        yield f"{name}_upper", spread.get("upper")
