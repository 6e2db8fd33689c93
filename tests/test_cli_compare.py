"""``compress compare``: finished runs side by side, and what makes them incomparable."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.run import again
from compressor.verify.comparison import comparison
from compressor.verify.pareto import failed_row, family
from compressor.verify.report import SCHEMA_VERSION, write_report
from tests.verify.reports import latency, run_report, spread

ERROR = {"kind": "InputError", "message": "out of reach", "exit_code": 2}


def compress(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def report(ratio: float = 0.6, **changes: Any) -> dict[str, Any]:
    found = run_report()
    found["inputs"] = {"weights_sha256": "a"}
    found["quality"] |= {"rows_sha256": "b", "difference": spread(-0.0122, 0.022)}
    found["latency"] = [latency("dense", 1.0), latency("compressed", ratio)]
    found["steps"] = [
        {"slug": "01-prune", "call": "prune(obs(target=Target(macs=0.6)))", "seconds": 1.0, "metrics": {}},
        {"slug": "02-export", "call": "export(onnx(path='/home/me/x.onnx'))", "seconds": 1.0, "metrics": {}},
    ]
    return {**found, "passed": True, **changes}


def written(place: Path, found: dict[str, Any]) -> Path:
    place.mkdir(parents=True)
    write_report(found, place / ("sweep.json" if "sweep" in found else "report.json"))
    return place


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run, and a sweep of two points of which one failed."""
    alone = written(tmp_path / "alone", report(0.5))
    point = report(0.7)
    rows = [*family({"macs-0.6": ({"macs": 0.6}, point)}), failed_row("macs-0.1", settings={"macs": 0.1}, error=ERROR)]
    asked = {"name": "toy", "digest": "0", "path": "macs", "model": "owner/model", "task": "glue"}
    family_of = {"sweep": asked, "environment": point["environment"], "rows": rows, "passed": False}
    sweep = written(tmp_path / "family", family_of)
    written(sweep / "macs-0.6", point)
    return [alone, sweep]


def test_runs_and_the_points_of_sweeps_have_one_row_each(runs: list[Path]):
    result = compress(*runs, runs[1] / "macs-0.6", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["compare"] == {"directories": [str(runs[0]), str(runs[1] / "macs-0.6")]}
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["dense", "alone", "family/macs-0.6", "family/macs-0.1"]
    assert [row["pareto"] for row in rows.values()] == [True, True, False, None]
    assert rows["alone"]["steps"] == "prune(obs(target=Target(macs=0.6))) > export(onnx(path='x.onnx'))"
    assert (rows["alone"]["score"], rows["alone"]["latency"][0]["ratio"]["value"]) == (0.7819, 0.5)
    assert rows["family/macs-0.1"]["error"]["message"] == "out of reach"
    assert found["warnings"] == []


def test_the_tables_and_the_page_say_it_in_words(runs: list[Path], tmp_path: Path):
    result = compress(*runs, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    for title in ("size and front", "quality", "latency, ratio to each one's dense", "how they were made", "where"):
        assert f"Compared: {title}" in result.stdout
    assert "family/macs-0.1 failed: out of reach" in result.stdout
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert "/home/me" not in page + result.stdout


def test_the_csv_has_a_row_per_run(runs: list[Path]):
    lines = list(csv.DictReader(io.StringIO(compress(*runs, "--csv").stdout)))
    assert [line["name"] for line in lines] == ["alone", "family/macs-0.6", "family/macs-0.1"]
    assert [line["latency_1x128_1_thread"] for line in lines] == ["0.5", "0.7", ""]
    assert lines[2]["failure"] == "out of reach"


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"inputs": {"weights_sha256": "other"}}, "compressed from different weights: changes are against"),
        ({"quality": {**report()["quality"], "rows_sha256": "other"}}, "judged on different rows: "),
        (
            {"quality": {**report()["quality"], "metric": "f1"}},
            "judged by different metrics, which cannot be compared: accuracy (a, c); f1 (b)",
        ),
        (
            {"quality": {**report()["quality"], "metric_options": {"of": 2}}},
            "judged by different metrics, which cannot be compared: accuracy (a, c); accuracy(of=2) (b)",
        ),
        (
            {"environment": {**report()["environment"], "cpu": "Z80"}},
            "timed on different machines: latencies cannot be compared: ",
        ),
        ({"environment": {**report()["environment"], "cpu_features": ["mmx"]}}, "timed on different machines: "),
        (
            {
                "environment": {
                    **report()["environment"],
                    "packages": {**report()["environment"]["packages"], "torch": "1.0"},
                }
            },
            "made with different versions of torch: ",
        ),
        (
            {"recipe": {**report()["recipe"], "task": {"name": "squad"}}},
            "different tasks: metrics cannot be compared: ",
        ),
    ],
    ids=["weights", "rows", "metric", "its options", "machine", "features", "version", "task"],
)
def test_what_makes_figures_incomparable_is_said(changes: dict[str, Any], warning: str):
    found = comparison({"a": ("a", report()), "b": ("b", report(**changes)), "c": ("c", report())})
    (said,) = found["warnings"]
    assert said.startswith(warning)
    assert "a, c" in said
    assert "torch" in warning or {row["pareto"] for row in found["rows"]} == {None}, "no front among them"


def test_warnings_go_to_stderr_beside_json(runs: list[Path], tmp_path: Path):
    other = written(tmp_path / "other", report(inputs={"weights_sha256": "other"}))
    result = compress(*runs, other, "--json")
    assert result.stderr.startswith("warning: compressed from different weights")
    assert "warning: compressed from different weights" in compress(*runs, other).stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alone",), "expected two runs or more to compare, got one"),
        (("alone", "nowhere"), "nowhere: no such directory"),
        (("alone", "damaged"), "its report is damaged: KeyError"),
        (("alone", "family", "--csv", "--json"), "--csv and --json: choose one"),
    ],
)
def test_what_cannot_be_compared_ends_with_2(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
):
    monkeypatch.chdir(runs[0].parent)
    written(Path("damaged"), {"sweep": {}, "schema_version": SCHEMA_VERSION})
    result = compress(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert message in json.loads(result.stdout)["error"]["message"] if "--json" in arguments else not result.stdout


def test_latency_times_all_of_them_again_at_the_first_ones_shapes(runs: list[Path], monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def bench(models: list[Path], options: Any, *, judged: bool) -> dict[str, Any]:
        asked.append((models, options.batch, options.sequence, options.threads, options.provider, judged))
        return {"latency": [latency("dense.onnx", 1.0), latency("alone", 0.4)]}

    monkeypatch.setattr(again, "bench_files", bench)
    monkeypatch.setattr(again, "dense_files", lambda place: [place / "dense.onnx"])
    elsewhere = report(0.5)
    elsewhere["latency"] = [{**row, "provider": "openvino"} for row in elsewhere["latency"]]
    write_report(elsewhere, runs[0] / "report.json")
    found = json.loads(compress(*runs, "--latency", "--json").stdout)
    models = [runs[0] / "dense.onnx", runs[0], runs[1] / "macs-0.6"]
    assert asked == [(models, (1,), (128,), (1,), "openvino", True)]
    assert [row["ratio"]["value"] for row in found["latency"]] == [1.0, 0.4]
    assert [row["name"] for row in found["rows"]][:2] == ["dense", "alone"]


def test_latency_is_of_the_files_that_the_figures_are_of(runs: list[Path]):
    """A run that quantised is judged by its int8 file, and timed by that; its portable one is another model."""
    int8 = report(0.3)
    int8["quality"]["model"] = "compressed int8"
    quantised = written(runs[0].parent / "quantised", int8)
    for name in ("model.onnx", "model_int8.onnx"):
        (quantised / name).touch()
    (runs[0] / "model.onnx").touch()
    found = again.named_files([runs[0], quantised], judged=True)
    assert found == {"alone": runs[0] / "model.onnx", "quantised": quantised / "model_int8.onnx"}


def test_comparing_imports_no_torch(runs: list[Path]):
    names = [str(run) for run in runs]
    code = f"import sys; from compressor.cli import main; main(['compare', *{names}], standalone_mode=False)"
    check = f"{code}\nfound = {{'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets'}} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
