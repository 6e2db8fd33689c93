"""The HTML page: whole, safe, and without anything from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compressor.verify.environment import environment
from compressor.verify.headline import figures, served_rows
from compressor.verify.page import report_page, sweep_page, without_paths
from compressor.verify.report import model_card
from compressor.verify.tables import sections
from tests.verify.reports import full_report, run_report
from tests.verify.test_svg import swept

VOID = {"meta"}


class Outline(HTMLParser):
    """Follows opening and closing tags; keeps headings, cells and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def swept_report() -> dict[str, Any]:
    shared = {"value": 0.6, "encoder_macs": 0.6, "parameters": 0.8, "bytes": 10, "kl": 0.1, "agreement": 0.9}
    names = (("dense", 1.0), ("<script>", 0.6))
    rows = [{**swept(name, ratio, 0.8, pareto=True), **shared, "verdict": "pass"} for name, ratio in names]
    sweep = {"name": "a", "digest": "0123", "path": "steps.0.prune.target.macs", "model": "/home/me/m", "task": "glue"}
    return {"sweep": sweep, "environment": environment(), "rows": rows, "passed": True}


PAGES = {"run": report_page(full_report()), "small run": report_page(run_report()), "sweep": sweep_page(swept_report())}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_well_formed_and_loads_nothing(page: str):
    found = Outline(page)
    assert page.startswith("<!DOCTYPE html>") or page.lstrip().startswith("<!DOCTYPE html>")
    assert not found.tags & {"script", "link", "img", "iframe", "object", "a"}
    assert not {name for name, _ in found.attributes} & {"src", "href", "srcset", "onload", "onclick"}
    for word in ("http:", "https:", "url(", "@import", "xmlns"):
        assert word not in page


def test_every_table_of_the_screen_and_every_picture_is_on_the_page():
    report = full_report()
    texts = Outline(report_page(report)).texts
    for section in sections(report):
        assert texts.count(section.title) >= 1, section.title
        for row in section.rows:
            assert {cell for cell in row if cell} <= set(texts)
    for title in (
        "What was asked",
        "What is left of each layer",
        "Metric against latency, by batch x length",
        "Where the time went",
        "Remarks",
        "Environment",
        "Made with",
    ):
        assert title in texts
    assert "FAILED: 1 of 2 gates failed" in texts
    assert report["recipe"]["digest"] in texts
    assert [
        texts.count(word) for word in ("Gates", "Serve (compressor.ort_session reads it from ort_config.json)")
    ] == [1, 1]


def test_what_users_write_is_escaped():
    page = report_page(full_report())
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;name&#39;)&lt;/script&gt;" in page
    assert "&lt;script&gt;alert(&#39;lint&#39;)&lt;/script&gt; &amp; more." in page
    assert "&lt;script&gt;" in PAGES["sweep"]


def test_no_path_of_this_machine_is_on_the_page(tmp_path: Path):
    report = full_report()
    report["recipe"] |= {
        "model": str(tmp_path),
        "task": {"name": "glue", "path": str(tmp_path / "data"), "subset": None},
    }
    page = report_page(report)
    assert str(tmp_path.parent) not in page
    assert "secret" not in page
    assert f"{tmp_path.name}, compressed for the task glue." in page
    assert "scorer.pt" in page
    assert "/home/me" not in PAGES["sweep"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("prune(x(path='/a/b/c.pt', n=2))", "prune(x(path='c.pt', n=2))"),
        ("op_names=('.*output', '.*query')", "op_names=('.*output', '.*query')"),
        ("model 'a/b' stays", "model 'a/b' stays"),
    ],
)
def test_only_paths_are_cut_down(words: str, shown: str):
    assert without_paths(words) == shown


def test_the_headline_is_of_the_file_to_serve_under_its_options():
    report = full_report()
    found = {figure.title: figure for figure in figures(report)}
    assert found["Speed"].value == "3.70 times"
    assert "the best dense configuration at 1 x 32, 1 thread" in found["Speed"].note
    assert "3.70 to 3.70 over all 2 shapes" in found["Speed"].note
    assert "3.70 times as fast as the best int8 alone" in found["Speed"].note
    assert found["Change of accuracy"].value == "-0.0122"
    assert found["File"].value == "50.0 MB"
    assert {(row["model"], row["slow_fusion"]) for row in served_rows(report)} == {("compressed int8", False)}
    report["serve"]["session_config"] = {}
    assert {row["slow_fusion"] for row in served_rows(report)} == {True}


def test_a_run_that_only_pruned_has_a_page_and_a_card():
    report = {name: part for name, part in run_report().items() if name in {"recipe", "environment", "passed"}}
    report |= {"lints": [], "steps": [], "model": {"parameters": {"dense": 10, "compressed": 5}}}
    page = report_page(report)
    assert "No gate was asked for" in page
    assert "Parameters" not in model_card(report)
    assert "0.5000" in page


def test_a_page_does_not_change_the_report():
    report = full_report()
    report_page(report)
    assert report == full_report()
