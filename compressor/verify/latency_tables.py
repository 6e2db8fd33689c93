"""What a report says of latency as tables of words. Takes plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from compressor.verify.section import CLOCKS, Data, Section, setting, with_interval

IDLE = 1.05
"""Most that wall time exceeds CPU time, for one thread, on a machine with nothing else to do."""


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


def serving_section(serve: Data) -> Section:
    """What to serve, and why: the dense model where nothing is gained."""
    if not serve.get("gained", True):
        row = ("the dense model, as it was", serve["provider"], "")
        opened = f"compressor.ort_session opens {serve['file']} all the same"
        return Section("Serve", ("model", "on", ""), [row], (*serve["why"], opened))
    options = ", ".join(f"{key}={value}" for key, value in serve["session_config"].items()) or "onnxruntime's own"
    row = (serve["file"], serve["provider"], options)
    title = "Serve (compressor.ort_session reads it from ort_config.json)"
    return Section(title, ("file", "on", "options"), [row], tuple(serve["why"]))


def latency_section(rows: Sequence[Data]) -> Section:
    """Time of a call at one thread count and one setting, against the first model's."""
    first = rows[0]
    tuned = "the same tuned options for all models" if first["provider"] == "cpu" else "onnxruntime's options"
    if first["slow_fusion"]:
        tuned = "onnxruntime's default options"
    columns = ("input", "model", "p50 ms", "p95 ms", "ratio to first", "speed-up")
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


def gains_sections(rows: Sequence[Data]) -> Iterator[Section]:
    """Yield how many times as fast as what is free the compressed files are, each under its faster options."""
    compressed = [row for row in rows if row["model"].startswith("compressed") and row.get("against")]
    if not compressed:
        return
    baselines = list(compressed[0]["against"])
    lines = []
    for (batch, sequence, threads, model), both in groupby(sorted(compressed, key=_place), key=_place):
        row = min(both, key=lambda one: one[f"{one['clock']}_ms"]["p50"])
        gains = (_gain(row["against"][name]["ratio"]) for name in baselines)
        place = f"{batch} x {sequence}" + (f", {setting(row)}" if threads != 1 else "")
        lines.append((place, model, *gains))
    best = {_configuration(row["against"][name]) for row in compressed for name in baselines if name.startswith("best")}
    notes = (f"The best of the dense and int8 files here: {', '.join(sorted(best))}",)
    yield Section("Times as fast as", ("input", "model", *baselines), lines, notes)


def _place(row: Data) -> tuple[int, int, int, str]:
    return row["batch"], row["sequence"], row["threads"], row["model"]


def _configuration(against: Data) -> str:
    return f"{against['model']} ({'default' if against['slow_fusion'] else 'tuned'} options)"


def _gain(ratio: Data) -> str:
    return f"{1 / ratio['value']:.2f} [{1 / ratio['upper']:.2f}, {1 / ratio['lower']:.2f}]"


def _latency_line(row: Data, *, is_first: bool) -> tuple[str, ...]:
    times = row[f"{row['clock']}_ms"]
    middle = (row["model"], f"{times['p50']:.2f}", f"{times['p95']:.2f}")
    if is_first:
        return (f"{row['batch']} x {row['sequence']}", *middle, f"1 (A/A {row['control']['value']:.3f})", "")
    return ("", *middle, with_interval(row["ratio"]), f"{1 / row['ratio']['value']:.2f}x")
