from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import compressor
from compressor.model.outputs import raw_output
from compressor.model.runtime import open_session
from compressor.run.again import verify_again
from compressor.testing import tiny_batch
from compressor.verify.inference import call
from tests.run.conftest import run_recipe
from tests.toys import squad_recipe


@pytest.mark.parametrize(("model_type", "version"), [("bert", "1.1"), ("distilbert", "2.0")])
def test_question_answering_runs_from_checkpoint_to_verified_onnx(model_type: str, version: str, tmp_path: Path):
    finished = run_recipe(squad_recipe(tmp_path, model_type=model_type, version=version), tmp_path / "out")
    report = finished.report
    quality = report["quality"]
    assert quality["rows"] == 40
    assert set(quality["dense"]) == {"f1", "exact_match"}
    assert quality["metric"] == "f1"
    assert quality["kl"] > 0
    assert 0 < quality["churn"] <= 1
    macs = report["model"]["encoder_macs"]
    assert macs["compressed"] <= 0.5 * macs["dense"]
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert [put.name for put in graph.output] == ["start_logits", "end_logits"]
    model: Any = compressor.load(tmp_path / "out")
    assert type(model).__name__.endswith("ForQuestionAnswering")
    batch = tiny_batch(labels=False) | {"token_type_ids": torch.zeros(4, 12, dtype=torch.int64)}
    session = open_session(tmp_path / "out" / "model.onnx")
    found = call(session, {put.name: batch[put.name].numpy() for put in session.get_inputs()})
    with torch.no_grad():
        expected = raw_output(model, batch).numpy()
    assert found.shape == expected.shape == (4, 12, 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert verify_again(tmp_path / "out", {"rounds": 3})["quality"] == quality
    assert verify_again(tmp_path / "out", {"rounds": 3, "samples": 10})["quality"]["rows"] == 10


@pytest.mark.parametrize(
    "options", [{}, {"measure": "batch-gradient", "refresh": 1}], ids=["curvature of drawn answers", "published"]
)
def test_kprune_prunes_question_answering(options: dict[str, Any], tmp_path: Path):
    prune = {"method": "kprune", "target": {"macs": 0.6}, **options}
    steps = [{"prune": prune}, {"export": {"format": "onnx"}}, {"verify": {"sequence": 16, "rounds": 3}}]
    report = run_recipe(squad_recipe(tmp_path, steps=steps), tmp_path / "out").report
    assert 0.5 < report["steps"][0]["metrics"]["macs_kept"] <= 0.6
    assert report["quality"]["kl"] > 0
    fits = report["steps"][0]["metrics"]["tuning"]
    assert all(fit["error_after"] < fit["error_before"] for fit in fits)
