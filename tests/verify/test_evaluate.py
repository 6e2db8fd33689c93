from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from scipy.special import log_softmax
from torch import Tensor

from compressor.errors import CompressorError, InputError
from compressor.model.batches import collate
from compressor.model.outputs import raw_output
from compressor.model.runtime import open_session
from compressor.testing import tiny_model, tiny_tokenizer
from compressor.verify.evaluate import compare, onnx_outputs, torch_outputs
from compressor.verify.inference import call
from compressor.verify.statistics import Resampling
from compressor_plugins.tasks.embedding import Embedding
from compressor_plugins.tasks.glue import Glue

FEW = Resampling(resamples=200)
MRPC = Glue(subset="mrpc")


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 20, size=37)
    return [
        {"input_ids": generator.integers(5, 64, n).tolist(), "attention_mask": [1] * n, "labels": int(n) % 2}
        for n in lengths.tolist()
    ]


pad = partial(collate, tokenizer=tiny_tokenizer())


def test_onnx_outputs_are_each_rows_own_in_the_rows_order(tiny_onnx: Callable[..., Path], rows: list[dict[str, Any]]):
    table = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    session = open_session(tiny_onnx(table=table))
    found = onnx_outputs(session, rows, task_output=MRPC.output, collate=pad, batch_size=8)
    expected = np.stack([table[row["input_ids"]].sum(axis=0) for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_onnx_outputs_feed_the_integer_type_that_the_graph_takes(
    tiny_onnx: Callable[..., Path], rows: list[dict[str, Any]]
):
    wide, narrow = (
        onnx_outputs(
            open_session(tiny_onnx(str(kind), kind=kind)), rows, task_output=MRPC.output, collate=pad, batch_size=8
        )
        for kind in (TensorProto.INT64, TensorProto.INT32)
    )
    np.testing.assert_array_equal(wide, narrow)


def test_onnx_outputs_pass_through_the_tasks_output(tiny_onnx: Callable[..., Path], rows: list[dict[str, Any]]):
    def lengths(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return torch.ones_like(raw[:, :1]) * batch["attention_mask"].sum(dim=1, keepdim=True)

    found = onnx_outputs(open_session(tiny_onnx()), rows, task_output=lengths, collate=pad, batch_size=5)
    assert found[:, 0].tolist() == [len(row["input_ids"]) for row in rows]


def test_torch_outputs_match_one_row_at_a_time(rows: list[dict[str, Any]]):
    model = tiny_model()
    found = torch_outputs(model, rows, task_output=MRPC.output, collate=pad, batch_size=6)
    with torch.no_grad():
        expected = torch.cat([raw_output(model, pad([row])) for row in rows]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_torch_outputs_pool_embeddings(rows: list[dict[str, Any]]):
    task = Embedding(corpus="python-docs")
    found = torch_outputs(tiny_model(num_labels=None), rows, task_output=task.output, collate=pad)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


def test_no_rows_are_refused(tiny_onnx: Callable[..., Path]):
    with pytest.raises(InputError, match="no rows to evaluate"):
        onnx_outputs(open_session(tiny_onnx()), [], task_output=MRPC.output, collate=pad)


def test_a_graph_input_the_rows_lack_is_named(tiny_onnx: Callable[..., Path], rows: list[dict[str, Any]]):
    path = tiny_onnx()
    model = onnx.load(str(path))
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", TensorProto.INT64, ["batch", "seq"]))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="needs the inputs pixels; the rows have input_ids, attention_mask, labels"):
        onnx_outputs(open_session(path), rows, task_output=MRPC.output, collate=pad)


def test_a_graph_that_takes_floats_is_refused(tiny_onnx: Callable[..., Path], rows: list[dict[str, Any]]):
    path = tiny_onnx()
    model = onnx.load(str(path))
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", "seq"]))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"takes pixels tensor\(float\); expected token ids"):
        onnx_outputs(open_session(path), rows, task_output=MRPC.output, collate=pad)


def test_ids_outside_the_vocabulary_are_an_error_with_the_shape(tiny_onnx: Callable[..., Path]):
    rows = [{"input_ids": [99, 100], "attention_mask": [1, 1]}]
    with pytest.raises(InputError, match="inputs of shape 1x2"):
        onnx_outputs(open_session(tiny_onnx()), rows, task_output=MRPC.output, collate=pad)


def labelled(labels: np.ndarray) -> list[dict[str, Any]]:
    return [{"labels": label} for label in labels.tolist()]


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outputs of a compressed and a dense model, and labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    dense = generator.normal(size=(300, 2)) + 1.5 * np.eye(2)[labels]
    return dense + generator.normal(scale=0.5, size=dense.shape), dense, labels


def test_comparison_counts_what_changed(answers: tuple[np.ndarray, np.ndarray, np.ndarray]):
    outputs, dense, labels = answers
    quality = compare(MRPC, outputs, dense, labelled(labels), FEW)
    right, was_right = outputs.argmax(1) == labels, dense.argmax(1) == labels
    assert quality.rows == 300
    assert quality.metric == "accuracy"
    assert quality.dense["accuracy"] == pytest.approx(was_right.mean())
    assert quality.compressed["accuracy"] == pytest.approx(right.mean())
    assert quality.difference.value == pytest.approx(right.mean() - was_right.mean())
    assert quality.difference.lower < quality.difference.value < quality.difference.upper
    assert quality.churn == pytest.approx((outputs.argmax(1) != dense.argmax(1)).mean())
    assert quality.lost == pytest.approx((was_right & ~right).mean())
    assert quality.gained == pytest.approx((~was_right & right).mean())
    log_p, log_q = log_softmax(dense, axis=1), log_softmax(outputs, axis=1)
    assert quality.kl == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


def test_dense_compared_with_itself_has_no_difference(answers: tuple[np.ndarray, np.ndarray, np.ndarray]):
    _, dense, labels = answers
    quality = compare(MRPC, dense, dense, labelled(labels), FEW)
    change = quality.difference
    assert (change.value, change.lower, change.upper) == (0.0, 0.0, 0.0)
    assert (quality.churn, quality.lost, quality.gained, quality.kl) == (0.0, 0.0, 0.0, 0.0)


def test_pairing_makes_the_interval_narrower_than_independent_samples(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
):
    outputs, dense, labels = answers
    paired = compare(MRPC, outputs, dense, labelled(labels)).difference
    hits = (outputs.argmax(1) == labels, dense.argmax(1) == labels)
    independent = 2 * 1.96 * np.sqrt(sum(hit.var() for hit in hits) / len(labels))
    assert paired.upper - paired.lower < 0.9 * independent


def test_comparison_is_the_same_for_the_same_seed(answers: tuple[np.ndarray, np.ndarray, np.ndarray]):
    outputs, dense, labels = answers
    first, second = (compare(MRPC, outputs, dense, labelled(labels), FEW) for _ in range(2))
    assert first == second


def test_other_examples_of_another_tokenizer_are_refused(answers: tuple[np.ndarray, np.ndarray, np.ndarray]):
    outputs, dense, labels = answers
    seen = [{**row, "example": number} for number, row in enumerate(labelled(labels))]
    with pytest.raises(CompressorError, match="leaves 299 examples, that of the dense one 300"):
        compare(MRPC, outputs[1:], dense, seen[1:], FEW, dense_samples=seen)
    others = [*seen[:-1], {**seen[-1], "example": 300}]
    with pytest.raises(CompressorError, match="expected the same ones"):
        compare(MRPC, outputs, dense, others, FEW, dense_samples=seen)


def test_regression_has_no_churn():
    generator = np.random.default_rng(0)
    labels = generator.uniform(0, 5, 50)
    quality = compare(
        Glue(subset="stsb"), labels[:, None] + generator.normal(size=(50, 1)), labels[:, None], labelled(labels), FEW
    )
    assert quality.metric == "spearman"
    assert quality.dense["spearman"] == pytest.approx(1.0)
    assert (quality.churn, quality.lost, quality.gained, quality.kl) == (None, None, None, None)


def test_embeddings_are_compared_without_labels():
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(40, 8))
    quality = compare(
        Embedding(corpus="python-docs"), dense + 0.5 * generator.normal(size=dense.shape), dense, [{}] * 40, FEW
    )
    assert quality.dense == pytest.approx({"cosine": 1.0, "cosine_p05": 1.0, "neighbor_agreement": 1.0})
    assert 0.5 < quality.compressed["cosine"] < 1.0
    assert (quality.churn, quality.kl) == (None, None)


class Answering:
    """A session that gives fixed outputs."""

    def __init__(self, *outputs: np.ndarray):
        self.outputs = list(outputs)

    def run(self, *_: Any) -> list[np.ndarray]:
        return self.outputs


def test_outputs_of_one_shape_are_stacked_and_others_left():
    one, other = np.random.default_rng(0).normal(size=(2, 3, 5))
    np.testing.assert_array_equal(call(Answering(one), {}), one)
    np.testing.assert_array_equal(call(Answering(one, other), {}), np.stack([one, other], axis=-1))
    np.testing.assert_array_equal(call(Answering(one, other[:1]), {}), one)
