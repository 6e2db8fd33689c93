"""A latency table as tables of words. Takes plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from compressor.verify.section import CLOCKS, Section, setting

NAMES = {"heads": "heads", "ffn_neurons": "FFN neurons"}


def profile_sections(report: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the tables of ``compress profile``."""
    if "profile" not in report:
        return
    found = report["profile"]
    table = found["table"]
    yield _whole(found, table)
    for kind in NAMES:
        yield _blocks(kind, table[kind], confidence=table["confidence"])
    yield _slow(found["slow"])


def _whole(found: Mapping[str, Any], table: Mapping[str, Any]) -> Section:
    work, check = table["workload"], table["check"]
    predicted, measured = found["check_predicted_ms"], check["milliseconds"]
    interval = f"[{check['lower']:.3f}, {check['upper']:.3f}]"
    rows = [
        ("dense", f"{table['dense_ms']:.3f} ms, {CLOCKS[table['clock']]}; A/A {table['control']:.3f}"),
        ("every sublayer emptied", f"{table['fixed_ms']:.3f} ms: lowest reachable ratio {found['lowest_ratio']:.4f}"),
        ("all blocks, added up", f"{found['blocks_ms']:.3f} ms of {table['dense_ms'] - table['fixed_ms']:.3f} ms"),
        (
            "a model with unlike layers",
            f"predicted {predicted:.3f} ms, measured {measured:.3f} {interval}: {predicted / measured - 1:+.1%}",
        ),
    ]
    notes = [
        f"{'measured now, kept in' if found['measured'] else 'measured before, read from'} {found['path']}",
        *(["the checkpoint is pruned; this is the dense model of its config"] if found["pruned"] else []),
    ]
    title = f"Latency of {found['model']} at {work['batch']} x {work['sequence']}, {setting(work)}"
    return Section(title, ("", ""), rows, tuple(notes))


def _blocks(kind: str, costs: Mapping[str, Any], *, confidence: float) -> Section:
    points = list(zip(*(costs[name] for name in ("counts", "milliseconds", "lower", "upper")), strict=True))
    rows = [
        (
            f"{count}",
            f"{milliseconds:.4f}",
            f"[{lower:.4f}, {upper:.4f}]",
            f"{1e3 * (milliseconds - before[1]) / (count - before[0]):.2f}",
        )
        for before, (count, milliseconds, lower, upper) in pairwise(points)
    ]
    columns = (NAMES[kind], "ms of one layer", f"{confidence:.0%} interval", "us per further unit")
    return Section(f"Cost of {NAMES[kind]}", columns, rows)


def _slow(widths: list[Mapping[str, Any]]) -> Section:
    rows = [
        (
            f"{width['count']} {NAMES[width['kind']]}",
            f"{width['milliseconds']:.4f} ms",
            f"{width['instead']} take {width['instead_ms']:.4f} ms"
            if width["instead"]
            else f"the line between its neighbours is at {width['instead_ms']:.4f} ms",
        )
        for width in widths
    ]
    none = () if rows else ("none: every cost is below its neighbours' line, or above it by less than the intervals",)
    return Section("Slow widths", ("", "", ""), rows, none)
