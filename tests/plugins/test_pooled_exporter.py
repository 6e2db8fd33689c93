"""Sentence embeddings inside the exported graph: as the directory says, and as the task measures them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressor.errors import InputError
from compressor.model import raw_output, shrink
from compressor.model.runtime import open_session
from compressor.model.sentences import pool
from compressor.testing import example_masks, tiny_batch, tiny_checkpoint, tiny_model
from compressor.verify.inference import call
from compressor_plugins.exporters._signature import Signature
from compressor_plugins.exporters.onnx import OnnxExporter
from compressor_plugins.families.bert import Bert
from compressor_plugins.tasks.embedding import Embedding
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

NAMES: dict[str, tuple[str, ...]] = {
    "input_names": ("input_ids", "attention_mask"),
    "output_names": ("last_hidden_state",),
}


def sentence_encoder(mode: str, *, normalize: bool) -> Any:
    model: Any = tiny_model(num_labels=None)
    model.config.sentence_embedding = {"mode": mode, "normalize": normalize}
    return model


def test_the_embedding_stands_next_to_the_token_vectors_in_both_files(tmp_path: Path) -> None:
    model = sentence_encoder("mean", normalize=True)
    pruned = shrink(model, Bert(), example_masks(Bert().groups(model))["ragged"])
    exporter, batch = OnnxExporter(pooling=True), tiny_batch(lengths=(9, 2, 5), labels=False)
    exporter.export(pruned, tmp_path / "model.onnx", **NAMES)
    assert not isinstance(exporter.export_fused(pruned, tmp_path / "model_ort.onnx", **NAMES), str)
    with torch.no_grad():
        hidden = raw_output(pruned, batch)
    expected = pool(hidden, batch["attention_mask"], pooling="mean", normalize=True).numpy()
    for name in ("model.onnx", "model_ort.onnx"):
        outputs = {put.name: put for put in onnx.load(tmp_path / name).graph.output}
        assert list(outputs) == ["last_hidden_state", "sentence_embedding"]
        assert [dim.dim_param for dim in outputs["sentence_embedding"].type.tensor_type.shape.dim] == ["batch", ""]
        inputs = {name: batch[name].numpy() for name in NAMES["input_names"]}
        session = open_session(tmp_path / name)
        tokens, embedding = session.run(None, inputs)
        np.testing.assert_allclose(embedding, expected, atol=1e-5)
        assert np.array_equal(call(session, inputs), tokens), "verify pools token vectors by the task"


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [False, True])
def test_padding_does_not_change_an_embedding(*, mode: str, normalize: bool) -> None:
    model = sentence_encoder(mode, normalize=normalize)
    net = Signature(model, **NAMES, pooling=OnnxExporter(pooling=True)._signature(model, **NAMES).pooling)
    batch = tiny_batch(lengths=(9, 4), labels=False)
    _, padded = net(batch["input_ids"], batch["attention_mask"])
    _, alone = net(batch["input_ids"][1:, :4], batch["attention_mask"][1:, :4])
    torch.testing.assert_close(padded[1:], alone)
    assert torch.allclose(padded.norm(dim=1), torch.ones(2)) == normalize


def test_pooling_that_is_not_the_tasks_is_refused_with_what_to_write() -> None:
    model = sentence_encoder("cls", normalize=False)
    OnnxExporter(pooling=True).check(model, Embedding(corpus="python-docs", pooling="cls", normalize=False))
    with pytest.raises(InputError, match="says cls, not normalised; task 'embedding' measures other") as refused:
        OnnxExporter(pooling=True).check(model, Embedding(corpus="python-docs"))
    assert refused.value.hint == "set task.pooling: cls and task.normalize: false"
    OnnxExporter().check(model, Embedding(corpus="python-docs"))


def test_a_classifier_is_not_pooled(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, steps=[{"export": {"pooling": True}}])
    with pytest.raises(InputError, match="has a head on the encoder"):
        run_recipe(recipe, tmp_path / "out")


def test_a_directory_without_modules_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source", num_labels=None)
    task = {"name": "embedding", "corpus": "python-docs", "max_length": 16}
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": {"pooling": True}}]
    recipe = toy_recipe(tmp_path, model=str(source), task=task, steps=steps)
    with pytest.raises(InputError, match=r"has no modules\.json"):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_directory_says_reaches_the_file_of_a_pruned_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_checkpoint(tmp_path / "source", num_labels=None)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    (source / "modules.json").write_text(json.dumps([{"path": path, "type": kind} for path, kind in kinds.items()]))
    seen: list[Signature] = []

    def export(net: Signature, _: Path, **__: Any) -> Any:
        seen.append(net)
        raise InputError("enough")

    monkeypatch.setattr("compressor_plugins.exporters._torch_onnx.export", export)
    task = {"name": "embedding", "corpus": "python-docs", "max_length": 16}
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": {"pooling": True}}]
    recipe = toy_recipe(tmp_path, model=str(source), task=task, steps=steps)
    with pytest.raises(InputError, match="enough"):
        run_recipe(recipe, tmp_path / "out")
    assert seen[0].output_names == ("last_hidden_state", "sentence_embedding")
    assert str(seen[0].pooling) == "mean, normalised"
