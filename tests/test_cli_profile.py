"""``compress profile`` on a tiny checkpoint: real files, and times as their sizes are, so that no clock decides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.run import latency as tables
from compressor.testing import tiny_checkpoint
from compressor.verify import profile
from compressor.verify.rounds import Protocol, Shape, Timings


def compress(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def sized(files: Mapping[str, Path], shapes: Sequence[Shape], **_: Any) -> dict[Shape, Timings]:
    """Pretend that a call takes as many nanoseconds as the file has bytes."""
    times = {name: np.full((2, 1), 1e-9 * path.stat().st_size) for name, path in files.items()}
    return {shapes[0]: Timings([times] * 3, np.arange(3))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("place")
    checkpoint = tiny_checkpoint(place / "checkpoint", num_hidden_layers=1, num_attention_heads=2)
    asked = ("profile", "-m", str(checkpoint), "--sequence", "8", "--rounds", "3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setenv("COLUMNS", "120")
        patch.setattr(profile, "interleave", sized)
        return {"shown": compress(*asked), "json": compress(*asked, "--json"), "cache": place / "cache"}


def test_tables_are_printed(results: dict[str, Any]):
    shown: Result = results["shown"]
    assert shown.exit_code == 0, shown.output
    titles = ("at 1 x 8, 1 thread", "Cost of heads", "Cost of FFN neurons", "Slow widths")
    assert all(title in shown.stdout for title in titles)
    assert re.search(r"lowest reachable ratio 0\.\d{4}", shown.stdout)
    assert re.search(r"predicted \d+\.\d{3} ms, measured \d+\.\d{3} \[\d+\.\d{3}, \d+\.\d{3}\]: [+-]\d", shown.stdout)
    assert re.search(r"^ +48 +-?\d+\.\d{4} +\[", shown.stdout, flags=re.MULTILINE)
    assert "measured now, kept in" in shown.stdout


def test_the_second_time_the_cache_answers(results: dict[str, Any]):
    again: Result = results["json"]
    assert again.exit_code == 0, again.output
    report = json.loads(again.stdout)
    assert not report["profile"]["measured"]
    assert report["profile"]["table"]["workload"] == {"batch": 1, "sequence": 8, "threads": 1, "provider": "cpu"}
    assert report["profile"]["table"]["heads"]["counts"] == [0, 1, 2]
    (kept,) = (results["cache"] / "compressor" / "latency").iterdir()
    assert report["profile"]["path"] == str(kept)
    assert json.loads(kept.read_text())["table"] == report["profile"]["table"]


def test_a_sequence_beyond_the_positions_ends_with_2(tmp_path: Path):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", num_hidden_layers=1)
    refused = compress("profile", "-m", str(checkpoint), "--sequence", "161")
    assert refused.exit_code == 2
    assert "161 tokens: the model has 160 positions" in refused.stderr


def test_a_provider_that_is_not_there_ends_with_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    refused = compress("profile", "-m", str(tmp_path), "--provider", "cuda")
    assert refused.exit_code == 3
    assert "CUDAExecutionProvider is not available" in refused.stderr


def test_a_directory_without_a_checkpoint_ends_with_2(tmp_path: Path):
    assert compress("profile", "-m", str(tmp_path)).exit_code == 2


def test_the_cli_measures_as_a_run_does():
    assert Protocol(rounds=15, untuned=False) == tables.PROTOCOL
