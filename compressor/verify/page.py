"""``report.html``: one file that opens without a network and without scripts, in light, in dark and on paper.

Tables are those of the screen (``tables.sections``), pictures are inline SVG, and jinja2 escapes every word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compressor.verify.comparison import comparison_sections
from compressor.verify.headline import figures
from compressor.verify.latency_tables import serving_section
from compressor.verify.pareto import pareto_sections
from compressor.verify.pictures import layers_picture, pareto_picture, timings_picture, tradeoff_pictures
from compressor.verify.report import STYLES, verdict
from compressor.verify.section import Data, Section, is_words, shown, without_paths
from compressor.verify.tables import gates_section, sections


@dataclass(frozen=True)
class Drawing:
    """A part of the page with pictures: its title, the pictures with a caption each, and remarks below."""

    title: str
    pictures: tuple[tuple[str, Markup], ...]
    notes: tuple[str, ...] = ()


def report_page(report: Data) -> str:
    """Return a run's report as a whole HTML page."""
    recipe = report["recipe"]
    first = list(_first(report))
    others = [section for section in sections(report) if section not in first]
    return _render(
        title=recipe["name"],
        lead=f"{shown(recipe['model'])}, compressed for the task {recipe['task']['name']}.{_subject(report)}",
        asked=[f"{step['slug']}: {without_paths(step.get('call', ''))}" for step in report.get("steps") or ()],
        verdict=verdict(report) if report.get("gates") else "No gate was asked for",
        figures=list(figures(report)),
        sections=first,
        drawings=list(_drawings(report)),
        others=others,
        warnings=report.get("warnings") or (),
        lints=[without_paths(lint) for lint in report.get("lints") or ()],
        tables=list(_made_with(report)),
    )


WORST = {
    "fail": "FAILED: a gate of a point failed",
    "inconclusive": "INCONCLUSIVE: gates of points lie within the noise; none failed",
    "pass": "PASSED: all gates of all points passed",
}


def _worst(rows: Sequence[Data]) -> str:
    lost, points = sum(bool(row.get("error")) for row in rows), sum(bool(row.get("settings")) for row in rows)
    if lost:
        return f"FAILED: {lost} of {points} points could not be finished"
    found = {row["verdict"] for row in rows}
    return next((words for verdict, words in WORST.items() if verdict in found), "No gate was asked for")


def sweep_page(report: Data) -> str:
    """Return a sweep's report as a whole HTML page."""
    sweep = report["sweep"]
    drawn = pareto_picture(report)
    notes = ("Dots are on the front, rings are not; bars are intervals: better is up and to the left",)
    return _render(
        title=f"{sweep['name']}: a family over {sweep['path']}",
        lead=f"{shown(sweep['model'])}, compressed for the task {sweep['task']}, once per value.",
        asked=[],
        verdict=_worst(report["rows"]),
        figures=[],
        sections=[],
        drawings=[Drawing("Metric against latency", (("", drawn),), notes)] if drawn else [],
        others=list(pareto_sections(report)),
        warnings=[],
        lints=[],
        tables=[
            environment_section(report["environment"]),
            Section("Made with", ("", ""), [("digest", sweep["digest"])]),
        ],
    )


def comparison_page(report: Data) -> str:
    """Return compared runs as a whole HTML page; the picture is there where their figures can be compared."""
    marked = any(row.get("pareto") is not None for row in report["rows"])
    drawn = pareto_picture(report) if marked else None
    notes = ("Dots are on the front, rings are not; bars are intervals: better is up and to the left",)
    return _render(
        title="Runs side by side",
        lead=f"{len(report['compare']['directories'])} runs, each measured against its own dense model.",
        asked=[],
        verdict=_worst(report["rows"]),
        figures=[],
        sections=[],
        drawings=[Drawing("Metric against latency", (("", drawn),), notes)] if drawn else [],
        others=list(comparison_sections(report)),
        warnings=[],
        lints=report["warnings"],
        tables=[],
    )


def _render(**words: Any) -> str:
    pages = Environment(
        loader=PackageLoader("compressor.verify"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("page.html").render(styles=STYLES, is_words=is_words, **words)


def _subject(report: Data) -> str:
    if not report.get("serve"):
        return ""
    which = "the file to serve" if report["serve"].get("gained", True) else "the fastest file here"
    return f" Figures at the top are those of {report['serve']['file']}, {which}."


def _first(report: Data) -> Iterator[Section]:
    """Yield the tables that stand before the pictures."""
    if report.get("gates"):
        yield gates_section(report["gates"])
    if report.get("serve"):
        yield serving_section(report["serve"])


def _drawings(report: Data) -> Iterator[Drawing]:
    if report.get("layers"):
        counted = ("Counts, not positions; an attention or FFN that lost everything is its bias and the residual",)
        yield Drawing("What is left of each layer", (("", layers_picture(report["layers"])),), counted)
    drawn = tuple(tradeoff_pictures(report))
    if drawn:
        read = (
            "Better is up and to the left; bars are intervals, of the metric that of its difference to dense",
            "Dots: the tuned options; rings: onnxruntime's default ones. Dense and dense int8 are free: no pruning needed",
        )
        yield Drawing("Metric against latency, by batch x length", drawn, read)
    if report.get("steps"):
        yield Drawing("Where the time went", (("", timings_picture(report["steps"])),))


def environment_section(environment: Data) -> Section:
    """What the figures were measured on."""
    load = environment.get("load_average")
    rows = [
        ("CPU", environment["cpu"]),
        ("CPU features", ", ".join(environment.get("cpu_features") or ())),
        ("cores", f"{environment['usable_cores']} of {environment['cores']} usable"),
        ("load average before", "" if load is None else str(load)),
        ("system", f"{environment['platform']}, Python {environment['python']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
    ]
    return Section("Environment", ("", ""), [row for row in rows if row[1]])


def _made_with(report: Data) -> Iterator[Section]:
    if report.get("environment"):
        yield environment_section(report["environment"])
    recipe, inputs = report["recipe"], report.get("inputs") or {}
    task = {name: value for name, value in recipe["task"].items() if name != "name" and value is not None}
    options = ", ".join(f"{name} {shown(value) if isinstance(value, str) else value}" for name, value in task.items())
    rows = [
        ("recipe digest", recipe["digest"]),
        ("seed", str(recipe["seed"])),
        ("task", f"{recipe['task']['name']}" + (f": {options}" if options else "")),
        *((name.replace("_", " "), str(value)) for name, value in inputs.items() if value is not None),
    ]
    notes = ("recipe.lock.yaml in this directory pins everything, report.json has every figure",)
    yield Section("Made with", ("", ""), rows, notes)
