"""The report: a JSON file, tables on screen, and a model card with measured numbers only. Takes plain data.

``report.json``, schema version 1; every part but the first and ``passed`` is there when it was measured:

    schema_version  1
    recipe          name, digest, seed, model, task
    environment     cpu, cpu_features, cores, usable_cores, load_average, platform, python, packages
    inputs          model_revision, weights_sha256, validation_sha256, calibration_rows, calibration_mean_length
    layers          a list, one of each layer of the dense model; each layer (its number there), heads and ffn_neurons
                    {kept, of}, dropped
    model           parameters {dense, compressed}; encoder_macs {dense, compressed, sequence}; bytes {dense, compressed}
    sparsity        masks {pruned_layers, linear_and_conv, all_parameters: {removed, of, ratio}};
                    files {dense, model: {weights, elements, zeros, ratio, two_of_four}}
    vocabulary      of the last step that trimmed it: tokens and positions {dense, compressed}; coverage {split: fraction of
                    rows cut into the same tokens as before that step}; unknown {split: {before, after}}, fractions of the
                    tokens; proof {rows, max_abs_diff}
    quality         model (that was asked for, in int8 where there is a step quantize), rows, rows_sha256, metric,
                    metric_options (of a metric of the user's own), dense {metric: value}, compressed {metric: value},
                    difference {value, lower, upper, confidence}, churn, lost, gained, mcnemar, kl,
                    right and commonest (of the dense model's rows: right, of the commonest class)
    variants        a list, dense first; each model, file, bytes, memory {load_seconds, session_mb, peak_mb} (in a process of
                    its own; null where the system does not tell), quality (as above; null for dense and for fused files)
    not_fused       why there are no fused files, where they were asked for
    latency         a list; each model, batch, sequence, threads, provider, slow_fusion, rounds, wall_ms {p50, p90, p95},
                    cpu_ms {p50, p90, p95}, clock, ratio, wall_ratio, control {value, lower, upper, confidence},
                    against {baseline: {model, slow_fusion, ratio}}
    serve           model, file, provider, session_config, gained (false: serve the dense model), why (a list); the same as ort_config.json
    lints           what the plan said beforehand that the run does not show
    warnings        what makes the figures doubtful
    gates           a list; each name, limit, value, lower, upper, verdict
    passed          whether no gate failed
    replay          of a lock file: reproduced; outputs {file: sha256}; changed {file: {locked, present}}
    steps           a list; each slug, seconds, metrics
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.verify.comparison import comparison_sections
from compressor.verify.inspection import inspection_sections
from compressor.verify.pareto import pareto_section, pareto_sections
from compressor.verify.profile_tables import profile_sections
from compressor.verify.section import Data, Section, is_words, shown
from compressor.verify.tables import environment_line, sections

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SCHEMA_VERSION = 1
VERDICTS: Mapping[str, str] = {"PASSED": "bold green", "FAILED": "bold red", "INCONCLUSIVE": "bold yellow"}
STYLES: Mapping[str, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def write_report(report: Data, path: Path) -> None:
    """Write the report as JSON, with its schema version first.

    Raises:
        ValueError: a figure is not a finite number, so it was not measured.
    """
    whole = {"schema_version": SCHEMA_VERSION, **report}
    path.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def render(report: Data, console: Console | None = None) -> None:
    """Print a run's report, a sweep's, compared runs, a benchmark or an inspection as tables, on stdout unless a console is given."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(emoji=False)  # "N:M:" is no emoji
    kinds = (sections, inspection_sections, profile_sections, pareto_sections, comparison_sections)
    for section in [section for kind in kinds for section in kind(report)]:
        console.print(Text(section.title, style="bold"))  # a table's own title would be wrapped at the table's width
        console.print(_table(section))
        for note in section.notes:
            console.print(Text(note, style="dim"))
        console.print()
    for lint in report.get("lints") or ():
        console.print(Text(f"note: {lint}", style="dim"))
    for warning in report.get("warnings") or ():
        console.print(Text(f"warning: {warning}", style="bold yellow"))
    if report.get("environment"):
        console.print(Text(environment_line(report["environment"]), style="dim"))
    if report.get("gates"):
        words = verdict(report)
        console.print(Text(words, style=VERDICTS[words.split(":")[0]]))


def verdict(report: Data) -> str:
    """Say in one line what the gates decided."""
    counts = [gate["verdict"] for gate in report["gates"]]
    if "fail" in counts:
        return f"FAILED: {counts.count('fail')} of {len(counts)} gates failed"
    if "inconclusive" in counts:
        return f"INCONCLUSIVE: {counts.count('inconclusive')} of {len(counts)} gates lie within the noise; none failed"
    return f"PASSED: {'the only gate' if len(counts) == 1 else f'all {len(counts)} gates'} passed"


def _table(section: Section) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.show_header, table.show_edge = any(section.columns), False
    for number, column in enumerate(section.columns):
        table.add_column(column, justify="left" if is_words(section, number) else "right", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def model_card(report: Data) -> str:
    """Return the README of a run's directory, in Markdown: what was measured, and how to load the files."""
    return "\n".join(_card_lines(report)).rstrip() + "\n"


def _card_lines(report: Data) -> Iterator[str]:
    recipe = report["recipe"]
    yield from ("---", "library_name: onnx", "tags: [onnx, onnxruntime, pruning, compressor-onnx]", "---")
    yield from (f"# {recipe['name']}", "")
    yield f"{shown(recipe['model'])}, compressed with compressor-onnx for the task `{recipe['task']['name']}`."
    yield ""
    for section in sections(report):
        yield from _markdown(section)
    if report.get("gates"):
        yield from (verdict(report), "")
    remarks = [f"* **Warning:** {warning}." for warning in report.get("warnings") or ()]
    remarks += [f"* {lint}." for lint in report.get("lints") or ()]
    if remarks:
        yield from ("## Remarks", "", *remarks, "")
    yield from ("## Use", "", *_use(report), "")
    yield from ("## Made with", "", f"Recipe digest `{recipe['digest']}`, seed {recipe['seed']}; `recipe.lock.yaml`")
    yield "in this directory pins everything, `report.json` has every figure."
    if report.get("environment"):
        yield from ("", f"Measured on {environment_line(report['environment'])}.")


def sweep_card(report: Data) -> str:
    """Return the README of a sweep's directory, in Markdown: the table, and what the directories are."""
    sweep = report["sweep"]
    lines = [
        f"# {sweep['name']}: a family over `{sweep['path']}`",
        "",
        f"{shown(sweep['model'])}, compressed with compressor-onnx for the task `{sweep['task']}`, once per value.",
        "",
        *_markdown(pareto_section(report)),
        "Each point has a directory of its name, as `compress apply` writes it; `sweep.json` has every figure above,",
        "`sweep.csv` one row per point.",
    ]
    if report.get("environment"):
        lines += ["", f"Measured on {environment_line(report['environment'])}."]
    return "\n".join(lines).rstrip() + "\n"


def _use(report: Data) -> Iterator[str]:
    exported = any(step["slug"].endswith("export") for step in report.get("steps") or ())
    yield from ("```python", "import compressor")
    if report.get("serve") and not report["serve"].get("gained", True):
        yield 'session = compressor.ort_session(".")  # the dense model is as good to serve: see above'
    elif report.get("serve"):
        yield 'session = compressor.ort_session(".")  # the file and the session options that ort_config.json recommends'
    elif exported:
        yield 'session = compressor.ort_session(".")  # model.onnx in onnxruntime; nothing was measured'
    yield from ('model = compressor.load(".")  # the float32 model in torch', "```")
    if exported:
        yield from (
            "",
            "Without compressor-onnx: any `*.onnx` file here opens in `onnxruntime.InferenceSession`, at any batch and",
        )
        yield f"length{'; `ort_config.json` names the session options' * bool(report.get('serve'))}."


def _markdown(section: Section) -> Iterator[str]:
    yield from (f"## {section.title}", "")
    yield f"| {' | '.join(section.columns)} |"
    yield f"|{' --- |' * len(section.columns)}"
    for row in section.rows:
        yield f"| {' | '.join(row)} |"
    yield from ("", *(f"{note}.\n" for note in section.notes))
