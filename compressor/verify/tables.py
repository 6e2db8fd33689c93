"""A report as tables of words: one source for the screen and for the model card. Takes plain data.

Everything is optional: a section appears when the report has its figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Data = Mapping[str, Any]
CLOCKS = {"cpu": "CPU time of the calling thread", "wall": "wall time"}
IDLE = 1.05
"""Most that wall time exceeds CPU time, for one thread, on a machine with nothing else to do."""


@dataclass(frozen=True)
class Section:
    """A table: its title, its columns, its rows of words, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def sections(report: Data) -> Iterator[Section]:
    """Yield the tables of a run's report, of a benchmark (latency alone), or of an inspection."""
    trained = [step for step in report.get("steps") or () if {"training", "trainings"} & step["metrics"].keys()]
    if trained:
        yield training_section(trained)
    if report.get("model"):
        yield size_section(report["model"])
    if report.get("sparsity"):
        yield sparsity_section(report["sparsity"])
    if report.get("quality"):
        yield quality_section(report["quality"])
    for _, rows in groupby(report.get("latency") or (), key=lambda row: (row["slow_fusion"], row["threads"])):
        yield latency_section(list(rows))
    promised = [step for step in report.get("steps") or () if "latency_target" in step["metrics"]]
    if promised:
        yield target_section(promised, report.get("latency") or ())
    if report.get("gates"):
        yield gates_section(report["gates"])


def target_section(steps: Sequence[Data], latency: Sequence[Data]) -> Section:
    """What steps were asked for, what the latency table predicted for their masks, and what the final file took."""
    rows = []
    for step in steps:
        target = step["metrics"]["latency_target"]
        same = ("batch", "sequence", "threads", "provider")
        measured = [
            with_interval(row["ratio"])
            for row in latency
            if row["model"] == "compressed" and not row["slow_fusion"] and all(row[k] == target[k] for k in same)
        ]
        place = f"{target['batch']} x {target['sequence']}"
        ratios = (f"{target['asked']:.3f}", f"{target['predicted']:.3f}", *(measured[:1] or ["not measured"]))
        rows.append((step["slug"], place, *ratios))
    return Section("Latency target, ratio to dense", ("step", "input", "asked", "predicted", "measured"), rows)


def training_section(steps: Sequence[Data]) -> Section:
    """What trainings did, of a step that has several each: the loss over the first and last tenth, and the metric in torch."""
    rows = []
    every = [(s, one) for s in steps for one in s["metrics"].get("trainings") or [s["metrics"]["training"]]]
    for step, training in every:
        loss, quality = training["loss"], training.get("quality")
        name = quality["metric"] if quality else ""
        change = f"{name} {quality['before'][name]:.4f} -> {quality['after'][name]:.4f}" if quality else ""
        losses = f"{loss['first']:.4g} -> {loss['last']:.4g}"
        rows.append((step["slug"], training.get("makes", ""), f"{training['steps']:,}", losses, change))
    note = (
        "loss: means of the first and the last tenth of the steps; metric: in torch, on validation examples, of the step train on "
        "at most 512"
    )
    return Section("Training", ("step", "makes", "steps", "loss", "metric"), rows, (note,))


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


DENOMINATORS = {
    "pruned_layers": "weights that were pruned",
    "linear_and_conv": "all Linear and Conv weights",
    "all_parameters": "all parameters",
}


def sparsity_section(sparsity: Data) -> Section:
    """What masks of weights removed, of three denominators, and the zeros that the files have."""
    rows = [
        (f"masks, of {name}", amount(masked["removed"]), amount(masked["of"]), f"{masked['ratio']:.4f}")
        for key, name in DENOMINATORS.items()
        for masked in [sparsity["masks"][key]]
    ]
    names = {"dense": "dense file", "model": "compressed file"}
    for key, name in names.items():
        found = (sparsity.get("files") or {}).get(key)
        if found:
            counts = (amount(found["zeros"]), amount(found["elements"]), f"{found['ratio']:.4f}")
            rows.append((f"{name}, of its {found['weights']} MatMul and Gemm weights", *counts))
    regular = (sparsity.get("files") or {}).get("model", {}).get("two_of_four", 0)
    notes = (f"Exactly 2 of every 4 inputs are zero in {regular} weights of the compressed file",) if regular else ()
    return Section("Zeros", ("", "zeros", "elements", "ratio"), rows, notes)


def amount(value: float) -> str:
    """Write a number so that it can be read: millions and billions with two decimals, less with thousands marked."""
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def quality_section(quality: Data) -> Section:
    """Metrics of the ONNX files, and how many answers changed."""
    rows = []
    for name, dense in quality["dense"].items():
        compressed = quality["compressed"][name]
        gap = quality["difference"]
        interval = f"[{gap['lower']:+.4f}, {gap['upper']:+.4f}]" if name == quality["metric"] else ""
        rows.append((name, f"{dense:.4f}", f"{compressed:.4f}", f"{compressed - dense:+.4f}", interval))
    confidence = f"{quality['difference']['confidence']:.0%} interval"
    dense, compressed = (quality[side][quality["metric"]] for side in ("dense", "compressed"))
    notes = [f"Relative change of {quality['metric']}: {compressed / dense - 1:+.2%}"] if dense > 0 else []
    if quality.get("churn") is not None:
        notes.append(
            f"{quality['churn']:.1%} of the answers changed: {quality['lost']:.1%} were right and are wrong now, "
            f"{quality['gained']:.1%} the other way"
        )
    if quality.get("kl") is not None:
        notes.append(f"mean KL to dense {quality['kl']:.3g} nats")
    title = f"Quality of the ONNX files in onnxruntime, {quality['rows']:,} held-out rows"
    return Section(title, ("metric", "dense", "compressed", "change", confidence), rows, tuple(notes))


def latency_section(rows: Sequence[Data]) -> Section:
    """Time of a call at one thread count and one setting, against the first model's."""
    first = rows[0]
    tuned = "onnxruntime's default options" if first["slow_fusion"] else "the same tuned options for all models"
    columns = ("input", "model", "p50 ms", "p90 ms", "ratio to first", "speed-up")
    lines = [_latency_line(row, is_first=row["model"] == first["model"]) for row in rows]
    clock = CLOCKS[first["clock"]]
    note = (
        f"{clock}, {first['rounds']} interleaved rounds, {first['ratio']['confidence']:.0%} intervals; "
        f"A/A: a second session of {first['model']} against the first"
    )
    notes = () if first["slow_fusion"] else (note, *_busy(rows))
    return Section(f"Latency by batch x length, {setting(first)}, {tuned}", columns, lines, notes)


def _busy(rows: Sequence[Data]) -> Iterator[str]:
    """Warn where calls waited for a core: their wall times say more of the neighbours than of the model."""
    waits = [row["wall_ms"]["p50"] / row["cpu_ms"]["p50"] for row in rows if row["clock"] == "cpu"]
    if waits and max(waits) > IDLE:
        yield f"The machine was busy: calls took up to {max(waits):.2f} times their CPU time; wall times are in the JSON"


def _latency_line(row: Data, *, is_first: bool) -> tuple[str, ...]:
    times = row[f"{row['clock']}_ms"]
    middle = (row["model"], f"{times['p50']:.2f}", f"{times['p90']:.2f}")
    if is_first:
        return (f"{row['batch']} x {row['sequence']}", *middle, f"1 (A/A {row['control']['value']:.3f})", "")
    return ("", *middle, with_interval(row["ratio"]), f"{1 / row['ratio']['value']:.2f}x")


def with_interval(ratio: Data) -> str:
    """Write a ratio with its interval."""
    return f"{ratio['value']:.3f} [{ratio['lower']:.3f}, {ratio['upper']:.3f}]"


def setting(measured: Data) -> str:
    """Say what ran a model: the number of threads, or another provider than the CPU."""
    if measured["provider"] != "cpu":
        return str(measured["provider"])
    return f"{measured['threads'] or 'all'} thread{'' if measured['threads'] == 1 else 's'}"


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
