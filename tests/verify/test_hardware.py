from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from compressor.verify import hardware as module
from compressor.verify.hardware import gpus, hardware


def test_the_machine_is_told_apart_without_being_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_machine_id", lambda: "4f6e65")
    one = hardware("cpu")
    monkeypatch.setattr(module, "_machine_id", lambda: "54776f")
    other = hardware("cpu")
    assert one != other
    assert {**one, "machine": 0} == {**other, "machine": 0}
    assert not any(word in json.dumps(one) for word in ("4f6e65", platform.node()))


def test_another_cpu_is_another_machine(monkeypatch: pytest.MonkeyPatch):
    fields = {"model name": "one", "stepping": "1", "flags": "fpu avx2"}
    keys = []
    for change in ({}, {"model name": "two"}, {"stepping": "2"}, {"flags": "fpu avx2 amx"}):
        monkeypatch.setattr(module, "cpu_fields", lambda change=change: fields | change)
        keys.append(json.dumps(hardware("cpu")))
    assert len(set(keys)) == 4
    monkeypatch.setattr(module, "cpu_fields", lambda: fields | {"flags": "avx2 fpu", "cpu MHz": "99"})
    assert json.dumps(hardware("cpu")) == keys[0]


def test_gpus_and_drivers_count_where_they_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA T4, 595.1'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(module.shutil, "which", lambda _: str(tool))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus() == {"devices": ["NVIDIA T4, 595.1"], "visible": "1"}
    assert hardware("cuda")["gpus"] == gpus()
    assert "gpus" not in hardware("cpu")
