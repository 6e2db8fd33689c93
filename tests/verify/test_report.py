from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compressor.verify.environment import environment
from compressor.verify.report import model_card, render, verdict, write_report
from tests.verify.reports import latency, run_report


@pytest.fixture
def report() -> dict[str, Any]:
    return run_report()


def screen(report: dict[str, Any], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_screen_shows_every_figure_within_100_columns(report: dict[str, Any]):
    text = screen(report)
    assert max(len(line) for line in text.splitlines()) <= 100
    for words in ("22.71 M", "18.46 M", "at length 52.87", "0.5997", "90.90", "73.80", "0.7941", "0.7819", "-0.0122"):
        assert words in text
    for words in (
        "[-0.0342, +0.0098]",
        "Relative change of accuracy: -1.54%",
        "5.4% of the answers changed",
        "28.80",
        "17.63",
        "0.612 [0.602, 0.622]",
        "1.63x",
    ):
        assert words in text
    assert "FAILED: 1 of 2 gates failed" in text
    assert "…" not in text  # nothing is cut off


def test_screen_shows_every_training_of_a_step_that_has_several(report: dict[str, Any]):
    one = {"makes": "cut 1: 8 heads", "steps": 250, "loss": {"first": 1.5, "last": 0.5}}
    quality = {"metric": "accuracy", "before": {"accuracy": 0.7}, "after": {"accuracy": 0.8}}
    other = {**one, "makes": "cut 2: 4 heads", "quality": quality}
    report["steps"] = [{"slug": "01-prune", "metrics": {"trainings": [one, other]}}]
    shown = screen(report)
    assert "cut 1: 8 heads" in shown
    assert "cut 2: 4 heads" in shown
    assert "accuracy 0.7000 -> 0.8000" in shown


def test_every_file_has_a_line_that_fits_80_columns(report: dict[str, Any]):
    report["variants"] = [
        {"model": name, "file": file, "bytes": 90_890_000, "memory": {"peak_mb": 147.2}, "quality": quality}
        for name, file, quality in (
            ("dense", "dense.onnx", None),
            ("compressed fused", "model_ort.onnx", None),
            ("compressed int8", "model_int8.onnx", report["quality"]),
        )
    ]
    lines = screen(report, width=80).partition("All files")[2].splitlines()[1:6]
    assert [line.split() for line in lines if ".onnx" in line] == [
        ["dense.onnx", "90.89", "147"],
        ["model_ort.onnx", "90.89", "147"],
        ["model_int8.onnx", "90.89", "147", "0.7819", "-0.0122", "[-0.0342,", "+0.0098]", "5.4%"],
    ]


def test_screen_says_when_the_machine_was_busy(report: dict[str, Any]):
    assert "busy" not in screen(report)
    report["latency"][1]["wall_ms"] = {name: 2 * value for name, value in report["latency"][1]["cpu_ms"].items()}
    assert "The machine was busy: calls took up to 2.00 times their CPU time" in screen(report)


def test_screen_takes_a_benchmark_without_a_model():
    text = screen({"latency": [latency("dense.onnx", 1.0), latency("a/rather/long/path/model.onnx", 0.5)]})
    assert "2.00x" in text
    assert "Quality" not in text


def test_screen_takes_an_inspection():
    file = {
        "size_bytes": 4096,
        "opset": {"ai.onnx": 20},
        "inputs": ["input_ids", "attention_mask"],
        "outputs": ["logits"],
        "initializer_elements": 12345,
        "operators": {"MatMul": 12, "Gelu": 3},
    }
    layers = [{"layer": 0, "heads": 3, "ffn_neurons": 40}, {"layer": 1, "heads": 0, "ffn_neurons": 0}]
    found = {
        "path": "somewhere",
        "model_type": "bert",
        "architecture": "BertModel",
        "family": "bert",
        "parameters": 12345,
        "encoder_macs": {"macs": 1000, "sequence": 128},
        "layers": layers,
        "files": {"model.onnx": file},
    }
    text = screen(found)
    for words in ("BertModel", "FFN neurons", "40", "model.onnx", "input_ids, attention_mask", "MatMul 12", "12,345"):
        assert words in text
    assert "12,345 numbers" in screen({"onnx": file})


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["pass"], "PASSED: the only gate passed"),
        (["pass", "pass"], "PASSED: all 2 gates passed"),
        (["pass", "inconclusive"], "INCONCLUSIVE: 1 of 2 gates lie within the noise; none failed"),
        (["fail", "inconclusive", "fail"], "FAILED: 2 of 3 gates failed"),
    ],
)
def test_verdict_names_the_worst(verdicts: list[str], words: str):
    assert verdict({"gates": [{"verdict": word} for word in verdicts]}) == words


def test_json_reads_back_with_its_schema_version(report: dict[str, Any], tmp_path: Path):
    path = tmp_path / "report.json"
    write_report(report, path)
    assert json.loads(path.read_text()) == {"schema_version": 1, **report}


def test_json_refuses_a_figure_that_was_not_measured(report: dict[str, Any], tmp_path: Path):
    report["quality"]["kl"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(report, tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


def test_card_has_the_measured_figures_and_no_path_of_this_machine(report: dict[str, Any], tmp_path: Path):
    report["recipe"]["model"] = str(tmp_path)
    card = model_card(report)
    assert card.startswith("---\nlibrary_name: onnx\n")
    assert "| accuracy | 0.7941 | 0.7819 | -0.0122 | [-0.0342, +0.0098] |" in card
    assert "compressed with compressor-onnx" in card
    assert f"\n{tmp_path.name}, compressed" in card
    assert str(tmp_path.parent) not in card


def test_card_keeps_a_hub_id(report: dict[str, Any]):
    assert "\nsentence-transformers/all-MiniLM-L6-v2, compressed" in model_card(report)


def test_environment_names_versions_and_cpu_but_not_the_machine():
    found = environment()
    assert found["cpu"]
    assert found["packages"].keys() >= {"torch", "transformers", "onnx", "numpy"}
    text = json.dumps(found)
    assert str(Path.home()) not in text
    import socket

    assert socket.gethostname() not in text
