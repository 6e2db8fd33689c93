from __future__ import annotations

import pytest

from compressor.verify.latency import LatencyRow
from compressor.verify.serving import fastest, recommend
from compressor.verify.statistics import Interval

ONE = Interval(1.0, 1.0, 1.0, 0.95)
FILES = {"compressed": "model.onnx", "compressed fused": "model_ort.onnx", "compressed int8": "model_int8.onnx"}


def row(model: str, p50: float, *, slow_fusion: bool = False, sequence: int = 128, clock: str = "cpu") -> LatencyRow:
    times = {"p50": p50, "p90": p50, "p95": p50}
    other = {"p50": 1e3, "p90": 1e3, "p95": 1e3}
    wall, cpu = (other, times) if clock == "cpu" else (times, other)
    return LatencyRow(model, 1, sequence, 1, "cpu", slow_fusion, 15, wall, cpu, clock, ONE, ONE, ONE)


ROWS = [
    row("dense", 1.0),
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
    assert "no file is within the gate on the metric" in found["why"]
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
