"""A report as tables of words: one source for the screen and for the model card. Takes plain data.

Everything is optional: a section appears when the report has its figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from compressor.verify.latency_tables import gains_sections, latency_section, serving_section, target_section
from compressor.verify.section import Data, Section, amount


def sections(report: Data) -> Iterator[Section]:
    """Yield the tables of a run's report, of a benchmark (latency alone), or of an inspection."""
    trained = [step for step in report.get("steps") or () if {"training", "trainings"} & step["metrics"].keys()]
    if trained:
        yield training_section(trained)
    if report.get("model"):
        yield size_section(report["model"], report.get("not_fused"))
    made = {"vocabulary": vocabulary_section, "sparsity": sparsity_section, "quality": quality_section}
    yield from (section(report[name]) for name, section in made.items() if report.get(name))
    if len(report.get("variants") or ()) > 2:  # noqa: PLR2004 - dense and compressed are in the tables above
        yield variants_section(report["variants"])
    for _, rows in groupby(report.get("latency") or (), key=lambda row: (row["slow_fusion"], row["threads"])):
        yield latency_section(list(rows))
    yield from gains_sections(report.get("latency") or ())
    promised = [step for step in report.get("steps") or () if "latency_target" in step["metrics"]]
    if promised:
        yield target_section(promised, report.get("latency") or ())
    if report.get("serve"):
        yield serving_section(report["serve"])
    if report.get("gates"):
        yield gates_section(report["gates"])


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


def size_section(model: Data, not_fused: str | None = None) -> Section:
    """Parameters, MACs and bytes, dense and compressed, and why there is no fused file where one was asked for."""
    names = {"parameters": "parameters", "encoder_macs": "encoder MACs", "bytes": "ONNX file, MB"}
    rows = []
    for key, name in names.items():
        if key in model:
            dense, compressed = model[key]["dense"], model[key]["compressed"]
            length = f" at length {model[key]['sequence']:.4g}" if "sequence" in model[key] else ""
            unit = 1e6 if key == "bytes" else 1
            kept = f"{compressed / dense:.4f}"
            rows.append((f"{name}{length}", amount(dense / unit), amount(compressed / unit), kept))
    notes = (f"No fused file: {not_fused}",) if not_fused else ()
    return Section("Size", ("", "dense", "compressed", "kept"), rows, notes)


def vocabulary_section(vocabulary: Data) -> Section:
    """Tokens and positions that stay, and how many rows are cut into other tokens than before."""
    rows = []
    for name in ("tokens", "positions"):
        dense, compressed = vocabulary[name]["dense"], vocabulary[name]["compressed"]
        rows.append((name, amount(dense), amount(compressed), f"{compressed / dense:.4f}"))
    notes = [
        f"{share:.2%} of the {split} rows are cut into the same tokens as before; unknown tokens "
        f"{vocabulary['unknown'][split]['before']:.2%} before, {vocabulary['unknown'][split]['after']:.2%} now"
        for split, share in vocabulary["coverage"].items()
    ]
    proof = vocabulary["proof"]
    proved = (
        f"Of those, {proof['rows']} calibration rows gave exactly the same output"
        if proof["rows"]
        else "No calibration row is cut into the same tokens, so no output was compared"
    )
    return Section("Vocabulary", ("", "dense", "compressed", "kept"), rows, (*notes, proved))


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
    if quality.get("mcnemar") is not None:
        notes.append(f"McNemar's exact test of these: p = {quality['mcnemar']:.2g}")
    if quality.get("kl") is not None:
        notes.append(f"mean KL to dense {quality['kl']:.3g} nats")
    title = f"Quality of the ONNX files in onnxruntime, {quality['rows']:,} held-out rows"
    return Section(title, ("metric", "dense", "compressed", "change", confidence), rows, tuple(notes))


def variants_section(variants: Sequence[Data]) -> Section:
    """Every file: its size, its memory in MB, and what it does to the metric; narrow enough for a screen of 80 columns."""
    metric = next(one["quality"]["metric"] for one in variants if one["quality"])
    rows: list[tuple[str, ...]] = []
    for one in variants:
        quality = one["quality"]
        figures = ("", "", "")
        if quality:
            gap = quality["difference"]
            change = f"{gap['value']:+.4f} [{gap['lower']:+.4f}, {gap['upper']:+.4f}]"
            figures = (f"{quality['compressed'][metric]:.4f}", change, _percent(quality["churn"]))
        peak = f"{one['memory']['peak_mb']:.0f}" if one.get("memory") else ""
        rows.append((one["file"], f"{one['bytes'] / 1e6:.2f}", peak, *figures))
    titles: tuple[str, ...] = ("file", "MB", "RAM", metric, "change to dense", "churn")
    filled = [number for number in range(len(titles)) if any(row[number] for row in rows)]
    notes = ("Fused files were compared with torch when they were written, and answer as the portable ones do",)
    return Section(
        "All files",
        tuple(titles[number] for number in filled),
        [tuple(row[number] for number in filled) for row in rows],
        notes if any("fused" in one["model"] for one in variants) else (),
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


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
    unsure = any((gate["name"], gate["verdict"]) == ("metric_drop", "inconclusive") for gate in gates)
    few = "metric_drop: the drop on these rows is within the limit, its interval is not; more validation rows narrow it"
    return Section("Gates", ("gate", "at most", "measured", "interval", "verdict"), rows, (few,) if unsure else ())
