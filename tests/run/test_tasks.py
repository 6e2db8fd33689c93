"""Every task from a checkpoint to a verified file, and what it says of a checkpoint that was tuned for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import compressor
from compressor.model.outputs import raw_output
from compressor.model.runtime import open_session
from compressor.run.again import verify_again
from compressor.testing import tiny_batch
from compressor.verify.inference import call
from tests.run.conftest import run_recipe
from tests.tables import TAGS, named_checkpoint, tagged_rows, task_recipe

VERIFY = {"verify": {"sequence": 16, "rounds": 3}}


def tagging(directory: Path, model_type: str = "bert", **changes: Any) -> Path:
    model = named_checkpoint(directory / "tagger", model_type, names=TAGS, head="token-classification")
    return task_recipe(directory, "token-classification", tagged_rows, model=model, **changes)


def test_token_classification_runs_from_checkpoint_to_verified_onnx(tmp_path: Path):
    report = run_recipe(tagging(tmp_path), tmp_path / "out").report
    quality = report["quality"]
    assert quality["rows"] == 32  # examples, of which some are cut
    assert set(quality["dense"]) == {"f1", "precision", "recall", "accuracy"}
    assert quality["metric"] == "f1"
    assert quality["kl"] > 0
    assert 0 < quality["churn"] <= 1
    macs = report["model"]["encoder_macs"]
    assert macs["compressed"] <= 0.5 * macs["dense"]
    assert [put.name for put in onnx.load(tmp_path / "out" / "model.onnx").graph.output] == ["logits"]
    model: Any = compressor.load(tmp_path / "out")
    assert type(model).__name__.endswith("ForTokenClassification")
    batch = tiny_batch(labels=False) | {"token_type_ids": torch.zeros(4, 12, dtype=torch.int64)}
    session = open_session(tmp_path / "out" / "model.onnx")
    found = call(session, {put.name: batch[put.name].numpy() for put in session.get_inputs()})
    with torch.no_grad():
        expected = raw_output(model, batch).numpy()
    assert found.shape == expected.shape == (4, 12, 5)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert verify_again(tmp_path / "out", {"rounds": 3})["quality"] == quality
