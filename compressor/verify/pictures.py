"""The pictures of a report: what is left of each layer, the metric against latency, where the time went. Plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

from compressor.verify.scatter import Point, Spread, scatter
from compressor.verify.section import BEST_DENSE, Data, portable, setting
from compressor.verify.svg import picture, rectangle, text

KINDS = {"heads": "attention heads", "ffn_neurons": "FFN neurons"}
COLOURS = {
    "dense": "dense",
    "dense int8": "dense-int8",
    "compressed": "compressed",
    "compressed int8": "compressed-int8",
}
"""Classes of the style sheet, by what a model is called without the word fused."""
NAME, BAR, GAP, ROW, TOP = 62.0, 200.0, 92.0, 20.0, 30.0
"""Widths of the columns of layers, height of a row, and where the rows begin."""
SINGLE = 32
"""Most units that are drawn one by one."""


def layers_picture(layers: Sequence[Data]) -> Markup:
    """Draw how many heads and FFN neurons of every layer of the dense model are left."""
    parts = [text(_column(column), 14, f"{title}: {_total(layers, kind)}") for column, kind, title in _kinds(layers)]
    for number, layer in enumerate(layers):
        top = TOP + ROW * number
        parts.append(text(NAME - 10, top + 12, f"layer {layer['layer']}", anchor="end", class_="tick"))
        if layer["dropped"]:
            parts.append(text(_column(0), top + 12, "dropped as a whole", class_="over"))
            continue
        for column, kind, _ in _kinds(layers):
            if kind in layer:
                parts += _bar(layer[kind], _column(column), top)
    said = "; ".join(f"{title}: {_total(layers, kind)}" for _, kind, title in _kinds(layers))
    return picture(_column(2) - 10, TOP + ROW * len(layers) + 4, *parts, label=f"What is left of each layer. {said}")


def _kinds(layers: Sequence[Data]) -> list[tuple[int, str, str]]:
    found = [(kind, title) for kind, title in KINDS.items() if any(kind in layer for layer in layers)]
    return [(column, kind, title) for column, (kind, title) in enumerate(found)]


def _column(number: int) -> float:
    return NAME + number * (BAR + GAP)


def _total(layers: Sequence[Data], kind: str) -> str:
    counts = [layer[kind] for layer in layers if kind in layer]
    return f"{sum(one['kept'] for one in counts):,} of {sum(one['of'] for one in counts):,}"


def _bar(units: Data, left: float, top: float) -> Iterator[Markup]:
    """Draw few units one by one, many as one bar; how many they are stands beside."""
    kept, of = units["kept"], units["of"]
    if 0 < of <= SINGLE:
        wide = BAR / of
        for number in range(of):
            style = "kept" if number < kept else "gone"
            yield rectangle(left + number * wide, top + 2, wide - 2, ROW - 7, style)
    elif of:
        yield rectangle(left, top + 2, BAR - 2, ROW - 7, "gone")
        yield rectangle(left, top + 2, (BAR - 2) * kept / of, ROW - 7, "kept")
    yield text(left + BAR + 6, top + 12, f"{kept:,} / {of:,}", class_="tick")


def timings_picture(steps: Sequence[Data]) -> Markup:
    """Draw how many seconds every step took."""
    name, bar, seconds = 110.0, 300.0, [step["seconds"] for step in steps]
    longest, whole = max([*seconds, 1e-9]), sum(seconds) or 1.0
    parts = []
    for number, step in enumerate(steps):
        top = ROW * number
        share = f"{step['seconds']:,.1f} s, {step['seconds'] / whole:.0%}"
        parts.append(text(name - 10, top + 13, step["slug"], anchor="end", class_="tick"))
        parts.append(rectangle(name, top + 3, max(bar * step["seconds"] / longest, 1.0), ROW - 7, "kept"))
        parts.append(text(name + bar * step["seconds"] / longest + 6, top + 13, share, class_="tick"))
    return picture(name + bar + 120, ROW * len(steps) + 4, *parts, label="Seconds of every step")


def tradeoff_pictures(report: Data) -> Iterator[tuple[str, Markup]]:
    """Yield a picture of the metric against latency for every shape and thread count, with a title.

    The dense model's own files and options are among the points: that is what costs nothing to have.
    """
    values = _values(report)
    place = lambda row: (row["batch"], row["sequence"], row["threads"])  # noqa: E731 - a key, used twice
    for (batch, sequence, _), rows in groupby(sorted(report.get("latency") or (), key=place), key=place):
        measured = [row for row in rows if portable(row["model"]) in values]
        points = _points(measured, values)
        if points:
            title = f"{batch} x {sequence}, {setting(measured[0])}"
            free = BEST_DENSE if BEST_DENSE in measured[0].get("against", {}) else "dense"
            yield title, scatter(points, x_title=f"time of a call, ratio to the {free}", y_title=_metric(report))


def _metric(report: Data) -> str:
    return str(report["quality"]["metric"])


def _values(report: Data) -> dict[str, Spread]:
    """Return the metric by model, with the interval of its difference to dense."""
    quality = report.get("quality")
    if not quality:
        return {}
    metric = quality["metric"]
    dense = quality["dense"][metric]
    judged = {quality.get("model", "compressed"): quality}
    judged |= {one["model"]: one["quality"] for one in report.get("variants") or () if one["quality"]}
    gaps = {model: one["difference"] for model, one in judged.items()}
    found = {model: (dense + gap["value"], dense + gap["lower"], dense + gap["upper"]) for model, gap in gaps.items()}
    return {"dense": (dense, dense, dense), **found}


def _points(rows: Sequence[Data], values: dict[str, Spread]) -> list[Point]:
    """Return a point for each row: a ring under onnxruntime's default options, a dot under the tuned ones."""
    common = all(BEST_DENSE in row.get("against", {}) for row in rows)
    shown = [row for row in rows if common or not row["slow_fusion"]]  # other ratios have no one denominator
    points = []
    for row in shown:
        ratio = row["against"][BEST_DENSE]["ratio"] if common else row["ratio"]
        alone = all(one["slow_fusion"] for one in shown if one["model"] == row["model"])
        points.append(
            Point(
                label=row["model"] if alone or not row["slow_fusion"] else "",
                x=(ratio["value"], ratio["lower"], ratio["upper"]),
                y=values[portable(row["model"])],
                class_=COLOURS.get(portable(row["model"]), "compressed"),
                hollow=row["slow_fusion"],
            )
        )
    return points


def pareto_picture(report: Data) -> Markup | None:
    """Draw a sweep's models at the first shape that was timed, the front connected; None where none was measured."""
    rows = [row for row in report["rows"] if row["latency"] and row["score"] is not None]
    if not rows:
        return None
    points = [_swept(row) for row in rows]
    front = [point for point, row in zip(points, rows, strict=True) if row["pareto"]]
    first = rows[0]["latency"][0]
    title = f"time of a call at {first['batch']} x {first['sequence']}, {setting(first)}, ratio to dense"
    return scatter(points, x_title=title, y_title=rows[0]["metric"] or "metric", path=front)


def _swept(row: Data) -> Point:
    ratio, score, gap = row["latency"][0]["ratio"], row["score"], row["difference"]
    ends = (score + gap["lower"] - gap["value"], score + gap["upper"] - gap["value"]) if gap else (score, score)
    colour = COLOURS.get(row["name"], "dense" if row["name"].startswith("dense") else "compressed")
    return Point(
        row["name"], (ratio["value"], ratio["lower"], ratio["upper"]), (score, *ends), colour, row["pareto"] is False
    )
