from __future__ import annotations

from dataclasses import replace

import pytest

from compressor.verify.latency import Against, LatencyRow
from compressor.verify.latency_tables import serving_section
from compressor.verify.page import report_page
from compressor.verify.report import model_card
from compressor.verify.serving import fastest, recommend
from compressor.verify.statistics import Interval
from tests.verify.reports import full_report

DENSE = 8.0
ONE = Interval(1.0, 1.0, 1.0, 0.95)
FILES = {"compressed": "model.onnx", "compressed fused": "model_ort.onnx", "compressed int8": "model_int8.onnx"}


def row(model: str, p50: float, *, slow_fusion: bool = False, sequence: int = 128, clock: str = "cpu") -> LatencyRow:
    times = {"p50": p50, "p90": p50, "p95": p50}
    other = {"p50": 1e3, "p90": 1e3, "p95": 1e3}
    wall, cpu = (other, times) if clock == "cpu" else (times, other)
    ratio = Interval(p50 / DENSE, p50 / DENSE - 0.01, p50 / DENSE + 0.01, 0.95)
    return LatencyRow(model, 1, sequence, 1, "cpu", slow_fusion, 15, wall, cpu, clock, ratio, ratio, ONE)


ROWS = [
    row("dense", DENSE),
    row("compressed", 4.0),
    row("compressed fused", 3.0),
    row("compressed int8", 2.0),
    row("compressed int8", 1.5, slow_fusion=True),
]


def test_the_fastest_file_and_options_are_recommended():
    found = recommend(ROWS, FILES, rejected={})
    assert (found["model"], found["file"], found["provider"]) == ("compressed int8", "model_int8.onnx", "cpu")
    assert found["session_config"] == {}  # with the fusion on it was faster
    assert found["why"] == [
        "model_int8.onnx had the lowest median latency of model.onnx, model_ort.onnx and model_int8.onnx",
        "with onnxruntime's SkipLayerNormFusion on, its default, a call takes 0.75 times as long at 1 x 128",
    ]


def test_a_file_that_loses_too_much_is_not_served():
    found = recommend(ROWS, FILES, rejected={"compressed int8": "it loses 0.03", "dense int8": "it loses more"})
    assert found["file"] == "model_ort.onnx"
    assert found["session_config"] == {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}
    assert found["why"] == [
        "model_ort.onnx had the lowest median latency of model.onnx and model_ort.onnx",
        "model_int8.onnx is not served: it loses 0.03",
    ]


def test_where_all_lose_too_much_the_fastest_is_named_and_that_is_said():
    found = recommend(ROWS, FILES, rejected=dict.fromkeys(FILES, "it loses 0.03"))
    assert found["file"] == "model_int8.onnx"
    assert found["why"][0] == "no file is within the gate on the metric: serve the dense model"
    assert not found["gained"]
    assert not any("not served" in reason for reason in found["why"])


def test_several_shapes_are_told():
    rows = [*ROWS, row("compressed", 1.0, sequence=32)]
    found = recommend(rows, FILES, rejected={})
    assert "lowest median latency (geometric mean over 2 inputs and thread counts) of" in found["why"][0]


def test_shapes_count_by_ratio_not_by_milliseconds():
    rows = [row("a", 1.0), row("a", 100.0, sequence=256), row("b", 2.0), row("b", 90.0, sequence=256)]
    assert fastest(rows, ["a", "b"]) == ("a", False)
    assert fastest(rows, ["b"]) == ("b", False)
    assert fastest(rows, []) is None


def test_with_several_threads_wall_time_decides():
    assert fastest([row("a", 2.0, clock="wall"), row("b", 1.0, clock="wall")], ["a", "b"]) == ("b", False)


def test_files_that_were_not_measured_cannot_be_recommended():
    with pytest.raises(ValueError, match=r"none of model\.onnx was measured"):
        recommend([row("dense", 1.0)], {"compressed": "model.onnx"}, rejected={})


def test_what_gains_is_said_to_gain():
    assert recommend(ROWS, FILES, rejected={})["gained"]


def test_where_no_file_is_faster_beyond_the_noise_the_dense_model_is_recommended():
    rows = [row("dense", DENSE), row("compressed", 7.99), row("compressed fused", 9.0)]
    found = recommend(rows, FILES, rejected={})
    assert not found["gained"]
    assert found["why"][0] == (
        "nothing is gained: no file here is faster than the best dense one beyond the noise, so serve the dense model, "
        "unless size or memory is what counts; the time of model.onnx by that one's is 0.999 [0.989, 1.009] at 1 x 128, 1 thread"
    )
    assert found["file"] == "model.onnx"


def test_a_gain_is_over_the_best_dense_file_and_beyond_what_two_sessions_of_one_file_are_apart():
    faster = row("compressed", 4.0)
    best = Against("dense fused", slow_fusion=False, ratio=Interval(0.97, 0.96, 0.98, 0.95))
    assert recommend([replace(faster, against={"best dense": best})], FILES, rejected={})["gained"]
    apart = replace(faster, against={"best dense": best}, control=replace(ONE, value=0.97))
    assert not recommend([apart], FILES, rejected={})["gained"]
    level = replace(best, ratio=Interval(0.99, 0.97, 1.01, 0.95))
    assert not recommend([replace(faster, against={"best dense": level})], FILES, rejected={})["gained"]


def test_a_rejected_file_gains_nothing():
    rows = [row("dense", DENSE), row("compressed", DENSE), row("compressed int8", 2.0)]
    found = recommend(rows, FILES, rejected={"compressed int8": "it loses 0.03"})
    assert (found["gained"], found["file"]) == (False, "model.onnx")


def test_shapes_without_a_gain_are_named():
    rows = [row("dense", DENSE), row("compressed", 4.0), row("compressed", DENSE, sequence=32)]
    found = recommend(rows, FILES, rejected={})
    assert found["gained"]
    told = (
        "there are inputs where model.onnx is not faster than the best dense file beyond the noise; "
        "its time by that one's: 1.000 [0.990, 1.010] at 1 x 32"
    )
    assert found["why"][0].startswith(told)


def test_the_report_names_no_file_to_serve_where_nothing_is_gained():
    report = full_report()
    report["serve"] = {**report["serve"], "gained": False, "why": ["nothing is gained"]}
    section = serving_section(report["serve"])
    assert section.rows == [("the dense model, as it was", "cpu", "")]
    assert section.notes[0] == "nothing is gained"
    assert "the dense model, as it was" in model_card(report)
    assert "recommends" not in model_card(report)
    assert "the file to serve" not in report_page(report)
    assert "the file to serve" in report_page(full_report())
