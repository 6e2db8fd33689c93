"""The verb that reads a finished run: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.verify.report import write_report
from tests.verify.reports import full_report
from tests.verify.test_page import swept_report


def compress(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_report_writes_the_page_and_the_card_again_and_prints_the_tables(tmp_path: Path):
    write_report(full_report(), tmp_path / "report.json")
    (tmp_path / "report.html").write_text("old")
    before = (tmp_path / "report.json").read_bytes()
    result = compress("report", tmp_path)
    assert (result.exit_code, result.stderr.count("written: ")) == (0, 1)
    assert "sweep.csv" not in result.stderr
    assert "FAILED: 1 of 2 gates failed" in result.stdout
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: onnx\n")
    assert (tmp_path / "report.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "README.md"}
    assert json.loads(compress("report", tmp_path, "--json").stdout) == json.loads(before)


def test_report_takes_a_sweep(tmp_path: Path):
    write_report(swept_report(), tmp_path / "sweep.json")
    result = compress("report", tmp_path)
    assert (result.exit_code, result.stderr.strip().endswith(f"README.md and {tmp_path / 'sweep.csv'}")) == (0, True)
    assert "Metric against latency" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "README.md").read_text().startswith("# a: a family over")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a finished run: report.json missing"),
        ("{", "is damaged"),
        ("[]", "expected schema_version 1, got None"),
        (json.dumps({**full_report(), "schema_version": 2}), "expected schema_version 1, got 2"),
        (json.dumps({"schema_version": 1}), "its report is damaged: KeyError"),
    ],
)
def test_report_refuses_what_is_no_finished_run(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    result = compress("report", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_report_names_a_directory_that_is_none(tmp_path: Path):
    result: Any = compress("report", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "no such directory" in result.stderr
