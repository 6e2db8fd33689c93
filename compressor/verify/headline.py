"""What a run came to, in a few figures: speed, metric and size of the file to serve. Plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compressor.verify.section import BEST_DENSE, BEST_INT8, Data, amount, portable, setting


@dataclass(frozen=True)
class Figure:
    """One figure of the headline: what it is, the figure, and what belongs to it."""

    title: str
    value: str
    note: str


def served(report: Data) -> str:
    """Return the model that a server should read, or the one that was asked for where nothing is recommended."""
    serve = report.get("serve") or {}
    return str(serve.get("model") or (report.get("quality") or {}).get("model", "compressed"))


def figures(report: Data) -> Iterator[Figure]:
    """Yield the headline's figures, each where it was measured."""
    rows = served_rows(report)
    if rows:
        yield _speed(rows)
    quality = served_quality(report)
    if quality:
        yield _metric(quality)
    yield from _sizes(report)


def served_rows(report: Data) -> list[Data]:
    """Return the latencies of the file to serve, under the options to serve it with."""
    rows = [row for row in report.get("latency") or () if row["model"] == served(report)]
    default = bool(report.get("serve")) and not report["serve"]["session_config"]
    return [row for row in rows if row["slow_fusion"] == default] or rows


def served_quality(report: Data) -> Data | None:
    """Return the quality of the file to serve; a fused one answers as the portable one."""
    name = portable(served(report))
    found = [one["quality"] for one in report.get("variants") or () if one["model"] == name and one["quality"]]
    quality: Data | None = found[0] if found else report.get("quality")
    return quality


def _speed(rows: Sequence[Data]) -> Figure:
    ratios = [
        row["against"][BEST_DENSE]["ratio"] if BEST_DENSE in row.get("against", {}) else row["ratio"] for row in rows
    ]
    gains = [1 / ratio["value"] for ratio in ratios]
    first, ratio = rows[0], ratios[0]
    free = f"the {BEST_DENSE} configuration" if BEST_DENSE in first.get("against", {}) else "the dense file"
    note = (
        f"as fast as {free} at {first['batch']} x {first['sequence']}, {setting(first)}; "
        f"{ratio['confidence']:.0%} interval {1 / ratio['upper']:.2f} to {1 / ratio['lower']:.2f}"
    )
    if BEST_INT8 in first.get("against", {}):
        note += f"; {1 / first['against'][BEST_INT8]['ratio']['value']:.2f} times as fast as the {BEST_INT8}"
    several = f"; {min(gains):.2f} to {max(gains):.2f} over all {len(gains)} shapes" if len(gains) > 1 else ""
    return Figure("Speed", f"{gains[0]:.2f} times", note + several)


def _metric(quality: Data) -> Figure:
    name, gap = quality["metric"], quality["difference"]
    note = (
        f"{name} {quality['dense'][name]:.4f} -> {quality['compressed'][name]:.4f} on {quality['rows']:,} held-out rows; "
        f"{gap['confidence']:.0%} interval {gap['lower']:+.4f} to {gap['upper']:+.4f}"
    )
    return Figure(f"Change of {name}", f"{gap['value']:+.4f}", note)


def _sizes(report: Data) -> Iterator[Figure]:
    model = report.get("model") or {}
    if "bytes" in model:
        sizes = {one["model"]: one["bytes"] for one in report.get("variants") or ()}
        small = sizes.get(served(report), model["bytes"]["compressed"])
        dense = model["bytes"]["dense"]
        yield Figure("File", f"{small / 1e6:.1f} MB", f"of {dense / 1e6:.1f} MB dense: {small / dense:.2f} of it")
    if "encoder_macs" in model:
        macs = model["encoder_macs"]
        note = f"of {amount(macs['dense'])} dense: {amount(macs['compressed'])} at length {macs['sequence']:.4g}"
        yield Figure("Encoder MACs", f"{macs['compressed'] / macs['dense']:.3f}", note)
