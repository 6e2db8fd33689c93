"""A report as tables of words: one source for the screen and for the model card. Takes plain data.

Everything is optional: a section appears when the report has its figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A table: its title, its columns, its rows of words, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def sections(report: Data) -> Iterator[Section]:
    """Yield the tables of a run's report, of a benchmark (latency alone), or of an inspection."""
    if report.get("model"):
        yield size_section(report["model"])
    if report.get("quality"):
        yield quality_section(report["quality"])
    for fusion, rows in groupby(report.get("latency") or (), key=lambda row: row["slow_fusion"]):
        yield latency_section(list(rows), slow_fusion=fusion)
    if report.get("gates"):
        yield gates_section(report["gates"])


def size_section(model: Data) -> Section:
    """Parameters, MACs and bytes, dense and compressed."""
    names = {"parameters": "parameters", "encoder_macs": "encoder MACs", "bytes": "ONNX file, MB"}
    rows = []
    for key, name in names.items():
        if key in model:
            dense, compressed = model[key]["dense"], model[key]["compressed"]
            length = f" at length {model[key]['sequence']:.4g}" if "sequence" in model[key] else ""
            unit = 1e6 if key == "bytes" else 1
            kept = f"{compressed / dense:.4f}"
            rows.append((f"{name}{length}", amount(dense / unit), amount(compressed / unit), kept))
    return Section("Size", ("", "dense", "compressed", "kept"), rows)


def amount(value: float) -> str:
    """Write a number so that it can be read: millions and billions with two decimals, less with thousands marked."""
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"


def quality_section(quality: Data) -> Section:
    """Metrics of the ONNX files, and how many answers changed."""
    rows = []
    for name, dense in quality["dense"].items():
        compressed = quality["compressed"][name]
        gap = quality["difference"]
        interval = f"[{gap['lower']:+.4f}, {gap['upper']:+.4f}]" if name == quality["metric"] else ""
        rows.append((name, f"{dense:.4f}", f"{compressed:.4f}", f"{compressed - dense:+.4f}", interval))
    confidence = f"{quality['difference']['confidence']:.0%} interval"
    notes = []
    if quality.get("churn") is not None:
        notes.append(
            f"{quality['churn']:.1%} of the answers changed: {quality['lost']:.1%} were right and are wrong now, "
            f"{quality['gained']:.1%} the other way; mean KL to dense {quality['kl']:.3g} nats"
        )
    title = f"Quality of the ONNX files in onnxruntime, {quality['rows']:,} held-out rows"
    return Section(title, ("metric", "dense", "compressed", "change", confidence), rows, tuple(notes))


def latency_section(rows: Sequence[Data], *, slow_fusion: bool) -> Section:
    """Time of a call, against the first model's."""
    first = rows[0]["model"]
    if slow_fusion:
        title = "Latency with onnxruntime's default options (SkipLayerNormalization fusion on)"
    else:
        title = "Latency in onnxruntime, all models with the same options"
        if rows[0]["provider"] == "cpu":
            title += " (SkipLayerNormalization fusion off)"
    columns = ("batch", "length", "threads", "model", "p50 ms", "p90 ms", "ratio", "speed-up", "A/A")
    lines = [_latency_line(row, is_first=row["model"] == first) for row in rows]
    clocks = {"cpu": "CPU time of the calling thread", "wall": "wall time"}
    clock = " and ".join(clocks[clock] for clock in sorted({row["clock"] for row in rows}))
    note = (
        f"{clock}, {rows[0]['rounds']} interleaved rounds; ratio to {first} with its "
        f"{rows[0]['ratio']['confidence']:.0%} interval; A/A: a second session of {first} against the first"
    )
    return Section(title, columns, lines, () if slow_fusion else (note,))


def _latency_line(row: Data, *, is_first: bool) -> tuple[str, ...]:
    times = row[f"{row['clock']}_ms"]
    start = (str(row["batch"]), str(row["sequence"]), str(row["threads"] or "all")) if is_first else ("", "", "")
    middle = (row["model"], f"{times['p50']:.2f}", f"{times['p90']:.2f}")
    if is_first:
        return (*start, *middle, "1", "", f"{row['control']['value']:.3f}")
    ratio = row["ratio"]
    interval = f"{ratio['value']:.3f} [{ratio['lower']:.3f}, {ratio['upper']:.3f}]"
    return (*start, *middle, interval, f"{1 / ratio['value']:.2f}x", "")


def environment_line(environment: Data) -> str:
    """Say in one line what the figures were measured on."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    load = "" if environment["load_average"] is None else f", load average {environment['load_average']}"
    return (
        f"{environment['cpu']}, {environment['usable_cores']} of {environment['cores']} cores usable{load}; "
        f"{environment['platform']}, Python {environment['python']}; {packages}"
    )


def gates_section(gates: Sequence[Data]) -> Section:
    """Limits and verdicts."""
    rows = []
    for gate in gates:
        exact = gate["lower"] is None
        interval = "exact" if exact else f"[{gate['lower']:.4f}, {gate['upper']:.4f}]"
        rows.append((gate["name"], f"{gate['limit']:g}", f"{gate['value']:.4f}", interval, gate["verdict"]))
    return Section("Gates", ("gate", "at most", "measured", "interval", "verdict"), rows)
