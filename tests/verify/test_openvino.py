from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import InputError, SetupError
from compressor.model.openvino import PROVIDER
from compressor.model.runtime import SessionOptions, open_session, require_provider
from compressor.verify.inference import call, feeds, input_types, unpadded

OPENVINO = SessionOptions(provider="openvino", threads=1)


def test_openvino_answers_as_onnxruntime_does(tiny_onnx: Callable[..., Path]):
    path = tiny_onnx("model", np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32))
    sessions = [open_session(path, options) for options in (SessionOptions(), OPENVINO)]
    assert sessions[1].get_providers() == [PROVIDER]
    for length in (1, 7):
        batch = unpadded(np.arange(2 * length).reshape(2, length))
        first, second = (call(session, feeds(input_types(session), batch)) for session in sessions)
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)
    ports = [[(port.name, port.type) for port in session.get_inputs()] for session in sessions]
    assert ports[0] == ports[1]
    outputs = [[(port.name, port.type) for port in session.get_outputs()] for session in sessions]
    assert outputs[0] == outputs[1]


def test_an_answer_is_not_overwritten_by_the_next_call(tiny_onnx: Callable[..., Path]):
    session = open_session(tiny_onnx("model", np.arange(64, dtype=np.float32)[:, None]), OPENVINO)
    first, second = (call(session, feeds(input_types(session), unpadded(np.array([[token]])))) for token in (1, 2))
    assert (first.item(), second.item()) == (1.0, 2.0)


def test_a_file_that_openvino_cannot_load_is_named(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx: OpenVINO cannot load this file"):
        open_session(tmp_path / "broken.onnx", OPENVINO)


def test_without_openvino_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny_onnx: Callable[..., Path]
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for ask in (lambda: require_provider("openvino"), lambda: open_session(tiny_onnx(), replace(OPENVINO, threads=0))):
        with pytest.raises(SetupError, match="OpenVINO cannot be imported") as caught:
            ask()
        assert "compressor-onnx[openvino]" in caught.value.hint
