"""The points of a sweep beside the dense model: rows of figures, the Pareto front among them, and their table. Plain data.

``sweep.json``, schema version 1:

    schema_version  1
    sweep           name, digest, path (of the values that differ, with `` x `` between them), model, task
    environment     as in a run's report, of the first point
    rows            a list: the dense model, baselines, points, points that failed; each as ``row`` makes it, with its mark
                    ``pareto``, or as ``failed_row`` does
    passed          whether all points were finished and no gate of any of them failed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from compressor.verify.section import Data, Section, setting, with_interval

Cells = Mapping[str, Callable[[Data], str]]
"""Columns: a title, and what stands below it in a model's row."""
NAME: Cells = {"model": lambda one: str(one["name"])}
FRONT = {True: "yes", False: "no", None: ""}
VERDICTS = ("fail", "inconclusive", "pass")
"""From the worst to the best."""


def row(name: str, report: Data, *, settings: Data | None = None, of: str = "compressed") -> dict[str, Any]:
    """Return what the table says of a model; what was not measured is None.

    Args:
        name: of the point, or of the baseline.
        report: of a run, as in ``report.json``.
        settings: that the point was asked for, by their paths; None of what is no point.
        of: ``"compressed"`` or ``"dense"``.

    Returns:
        ``name``, ``settings``, ``directory`` (of a point), ``encoder_macs`` and ``parameters`` (kept of the dense model), ``bytes``, ``metric``,
        ``score``, ``difference`` to dense, ``kl``, ``agreement``, ``latency`` (a list, at one thread count; each batch,
        sequence, threads, provider, ratio), ``verdict`` (the worst of the gates').
    """
    sizes, quality, dense = report["model"], report.get("quality") or {}, of == "dense"
    churn = quality.get("churn")
    kept = {key: sizes[key][of] / sizes[key]["dense"] for key in ("encoder_macs", "parameters") if key in sizes}
    verdicts = {gate["verdict"] for gate in report.get("gates") or ()}
    return {
        "name": name,
        "settings": settings,
        "directory": None if settings is None else name,
        "encoder_macs": kept.get("encoder_macs"),
        "parameters": kept.get("parameters"),
        "bytes": sizes["bytes"][of] if "bytes" in sizes else None,
        "metric": quality.get("metric"),
        "score": quality[of][quality["metric"]] if quality else None,
        "difference": None if dense else quality.get("difference"),
        "kl": None if dense else quality.get("kl"),
        "agreement": None if dense or churn is None else 1.0 - churn,
        "latency": _latency(report.get("latency") or (), "dense" if dense else quality.get("model", of)),
        "verdict": None if dense else next((one for one in VERDICTS if one in verdicts), None),
    }


def failed_row(name: str, *, settings: Data, error: Data) -> dict[str, Any]:
    """Return the row of a point without a result: ``error`` (kind, message, exit_code), and None for every figure."""
    nothing = row(name, {"model": {}}, settings=settings)
    return {**nothing, "directory": None, "error": error, "pareto": None}


def int8_alone(report: Data) -> list[dict[str, Any]]:
    """Return the row of the dense model in int8, which costs nothing to have; none where it was not made."""
    of = next((one for one in report.get("variants") or () if one["model"] == "dense int8"), None)
    if of is None:
        return []
    quality, dense = of["quality"], row("", report, of="dense")
    return [
        {
            **dense,
            "name": "dense int8",
            "bytes": of["bytes"],
            "score": quality["compressed"][quality["metric"]],
            "difference": quality["difference"],
            "kl": quality["kl"],
            "agreement": None if quality["churn"] is None else 1.0 - quality["churn"],
            "latency": _latency(report["latency"], "dense int8"),
        }
    ]


def _latency(rows: Sequence[Data], model: str) -> list[dict[str, Any]]:
    """Return a model's ratios to dense at the first thread count."""
    keys = ("batch", "sequence", "threads", "provider", "ratio")
    return [
        {key: one[key] for key in keys}
        for one in rows
        if one["model"] == model and not one["slow_fusion"] and one["threads"] == rows[0]["threads"]
    ]


def family(points: Mapping[str, tuple[Any, Data]], baselines: Sequence[Data] = ()) -> list[dict[str, Any]]:
    """Return the rows of a sweep, marked: dense, baselines, points.

    Where the points do not share one dense model and its rows (a sweep over ``seed`` may draw others), each dense
    result has a row, and there is no front; nor where the metric, the first shape that was timed, what ran it, or the
    machine differs. Rows of quantised points are of their int8 files, and the dense model's int8 file has one.

    Args:
        points: settings and report of every point, by name.
        baselines: rows of other models that were compared with the same dense one.
    """
    subjects: list[tuple[Any, ...]] = []
    dense, free = list[dict[str, Any]](), list[dict[str, Any]]()
    for name, (_, report) in points.items():
        if (subject := _subject(report)) not in subjects:
            subjects.append(subject)
            dense.append(row(f"dense of {name}" if dense else "dense", report, of="dense"))
            free += int8_alone(report) if len(subjects) == 1 else []
    mine = (row(name, report, settings=settings) for name, (settings, report) in points.items())
    rows = [*dense, *free, *baselines, *mine]
    timed = {_timed(one["latency"][0]) for one in rows if one["latency"]}
    machines = {machine(report.get("environment") or {}) for _, report in points.values()}
    marks = front(rows) if len(dense) == len(timed) == len(machines) == 1 else [None] * len(rows)
    return [{**one, "pareto": mark} for one, mark in zip(rows, marks, strict=True)]


def machine(environment: Data) -> tuple[Any, ...]:
    """Return what latencies depend on: equal for figures that can be compared."""
    return tuple(str(environment.get(key)) for key in ("cpu", "cpu_features", "usable_cores", "platform"))


def _subject(report: Data) -> tuple[Any, ...]:
    """Return what a point was compared with and on what: equal for points whose figures can be compared."""
    judged = report.get("quality") or {}
    dense = report["inputs"]["weights_sha256"], report["model"].get("bytes", {}).get("dense")
    return (report["recipe"]["task"], *dense, judged.get("rows_sha256"), judged_by(judged))


def judged_by(quality: Data) -> str | None:
    """Return the metric with its options, where it is one of the user's own: equal for scores that can be compared."""
    options = ", ".join(f"{name}={value}" for name, value in sorted((quality.get("metric_options") or {}).items()))
    return f"{quality['metric']}({options})" if options else quality.get("metric")


def _timed(measured: Data) -> tuple[int, int, str]:
    """Return batch, sequence and what ran the model."""
    return measured["batch"], measured["sequence"], setting(measured)


def front(rows: Sequence[Data]) -> list[bool | None]:
    """Tell for each row whether it is on the Pareto front of latency, at the first shape, and the metric.

    It is when no other row is at least as good in both and better in one. None: it has no latency or no metric.
    """
    found = [(one["latency"][0]["ratio"]["value"], -one["score"]) if _measured(one) else None for one in rows]
    known = [one for one in found if one is not None]
    return [None if me is None else not any(o != me and o[0] <= me[0] and o[1] <= me[1] for o in known) for me in found]


def _measured(one: Data) -> bool:
    return bool(one["latency"]) and one["score"] is not None


def pareto_sections(report: Data) -> Iterator[Section]:
    """Yield the table of a sweep in parts that fit a narrow screen."""
    if "sweep" not in report:
        return
    rows = report["rows"]
    size, quality, latency, verdict = cells(rows)
    parts = {"size and front": {**size, **verdict}, "quality": quality, "latency, ratio to dense": latency}
    path, remarks = report["sweep"]["path"], notes(rows)
    for name, part in parts.items():
        columns, lines = filled({**NAME, **part}, rows)
        if len(columns) > 1:
            yield Section(f"Family over {path}: {name}", columns, lines, remarks.get(name, ()))


def pareto_section(report: Data) -> Section:
    """Return every model of a sweep in one table; a column appears when a row has its figure."""
    rows = report["rows"]
    columns, lines = filled({key: cell for part in (NAME, *cells(rows)) for key, cell in part.items()}, rows)
    remarks = tuple(note for part in notes(rows).values() for note in part)
    return Section(f"Family over {report['sweep']['path']}", columns, lines, remarks)


def filled(cells: Cells, rows: Sequence[Data]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns that have a figure, and the rows of words below them."""
    columns = {title: [cell(one) for one in rows] for title, cell in cells.items()}
    shown = {title: words for title, words in columns.items() if any(words)}
    return tuple(shown), list(zip(*shown.values(), strict=True))


def cells(rows: Sequence[Data]) -> tuple[Cells, Cells, Cells, Cells]:
    """Return the columns of size, quality, latency and verdict."""
    metrics = dict.fromkeys(one["metric"] for one in rows if one["metric"])
    size: Cells = {
        "MACs": lambda one: _number(one["encoder_macs"], ".4f"),
        "parameters": lambda one: _number(one["parameters"], ".4f"),
        "ONNX MB": lambda one: "" if one["bytes"] is None else f"{one['bytes'] / 1e6:.2f}",
    }
    quality: Cells = {
        " / ".join(metrics) or "metric": lambda one: _number(one["score"], ".4f"),
        "change": _change,
        "KL": lambda one: _number(one["kl"], ".3g"),
        "agreement": lambda one: _number(one["agreement"], ".1%"),
    }
    shapes = dict.fromkeys(_timed(each) for one in rows for each in one["latency"])
    several = len({ran for _, _, ran in shapes}) > 1
    latency = {f"latency {n} x {t}" + f", {ran}" * several: _ratio_at((n, t, ran)) for n, t, ran in shapes}
    verdict: Cells = {
        "gates": lambda one: "failed" if one.get("error") else one["verdict"] or "",
        "front": lambda one: FRONT[one["pareto"]],
    }
    return size, quality, latency, verdict


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _change(one: Data) -> str:
    gap = one["difference"]
    return f"{gap['value']:+.4f} [{gap['lower']:+.4f}, {gap['upper']:+.4f}]" if gap else ""


def _ratio_at(timed: tuple[int, int, str]) -> Callable[[Data], str]:
    def cell(one: Data) -> str:
        at = [each["ratio"] for each in one["latency"] if _timed(each) == timed]
        exact = bool(at) and at[0]["lower"] == at[0]["upper"]
        return "" if not at else f"{at[0]['value']:.3f}" if exact else with_interval(at[0])

    return cell


def notes(rows: Sequence[Data]) -> dict[str, tuple[str, ...]]:
    """Return remarks below the parts of the table, by part."""
    failed = tuple(
        f"{one['name']} failed: {one['error']['message'].replace(chr(10), '; ').rstrip('.')}"
        for one in rows
        if one.get("error")
    )
    timed = next((one for one in rows if _measured(one)), None)
    if timed is None:
        return {"size and front": failed}
    first = timed["latency"][0]
    marked = all(one["pareto"] is not None for one in rows if _measured(one))
    place = f"{first['batch']} x {first['sequence']}"
    front = (
        f"Front: no other row is at least as good in {timed['metric']} and in latency at {place}, and better in one; "
        "intervals are not counted"
    )
    none = "No front: the points do not share one dense model, its rows, the metric, the first timed shape, and the machine"
    ran = " and ".join(dict.fromkeys(setting(one["latency"][0]) for one in rows if one["latency"]))
    clock = f"Latency: ratio to dense, {ran}, every point timed in turns with dense in its own run"
    return {"size and front": (front if marked else none, *failed), "latency, ratio to dense": (clock,)}
