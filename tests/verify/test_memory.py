from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import CompressorError
from compressor.model.runtime import SessionOptions
from compressor.verify import memory
from compressor.verify.memory import measure_memory
from compressor.verify.rounds import Shape

pytestmark = pytest.mark.usefixtures("own_processes")


def test_a_larger_file_takes_more_memory_by_what_its_weights_take(tiny_onnx: Callable[..., Path]):
    rows = 2_000_000
    files = {
        "small": tiny_onnx("small", np.zeros((64, 2), np.float32)),
        "large": tiny_onnx("large", np.ones((rows, 2), np.float32)),
    }
    found = measure_memory(files, Shape(1, 8), SessionOptions())
    assert list(found) == ["small", "large"]
    assert found["large"]["session_mb"] - found["small"]["session_mb"] > 0.9 * rows * 8 / 1e6
    for one in found.values():
        assert one["peak_mb"] >= one["session_mb"] > 0
        assert one["load_seconds"] > 0


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(CompressorError, match=r"broken\.onnx: its memory cannot be measured: .*cannot load this file"):
        measure_memory({"broken": tmp_path / "broken.onnx"}, Shape(1, 8), SessionOptions())


def test_the_runtime_is_imported_before_anything_is_weighed(
    tiny_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []
    real = memory.require_provider

    def require(provider: str) -> Any:
        order.append(provider)
        return real(provider)

    def resident(field: str) -> float:
        order.append(field)
        return 1.0

    monkeypatch.setattr(memory, "require_provider", require)
    monkeypatch.setattr(memory, "_resident", resident)
    options = asdict(SessionOptions(provider="openvino"))
    memory.answer({"path": str(tiny_onnx()), "shape": asdict(Shape(1, 8)), "options": options})
    assert order == ["openvino", "VmRSS", "VmRSS", "VmHWM"]
