"""Multi-label classification and regression on one's own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import nn

from compressor.errors import InputError
from compressor.testing import tiny_tokenizer
from compressor_plugins.tasks.multi_label_classification import MultiLabelClassification
from compressor_plugins.tasks.regression import Regression
from tests.tables import write_lines

NAMES = {"spam": 0, "insult": 1, "threat": 2}


def many(path: Path, **options: Any) -> MultiLabelClassification:
    return MultiLabelClassification(train=path, validation=path, **options)


def labels_of(path: Path, label2id: Any = NAMES, **options: Any) -> list[list[float]]:
    labels: list[list[float]] = many(path, **options).load("train", tiny_tokenizer(), label2id=label2id)["labels"][:]
    return labels


# --- labels ---


def test_lists_of_names_lists_of_ids_and_texts_give_the_same_labels(tmp_path: Path):
    expected = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    for name, values in {
        "names": [["threat", "Spam"], [], ["insult"]],
        "ids": [[0, 2], [], [1]],
        "texts": ["spam, threat", "", "insult"],
    }.items():
        rows = [{"text": "a", "label": value} for value in values]
        assert labels_of(write_lines(tmp_path / f"{name}.jsonl", rows)) == expected
    table = tmp_path / "rows.csv"
    table.write_text("text,label\na,threat|spam\na,\na,insult\n")
    assert labels_of(table, separator="|") == expected


def test_the_option_orders_classes_that_the_checkpoint_does_not_name(tmp_path: Path):
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "a", "label": ["insult"]}])
    unnamed = {f"LABEL_{number}": number for number in range(3)}
    assert labels_of(path, unnamed, labels=("threat", "insult", "spam")) == [[0.0, 1.0, 0.0]]
    assert many(path, labels=("threat", "insult", "spam")).num_labels == 3


@pytest.mark.parametrize(
    ("content", "label2id", "message"),
    [
        ("", NAMES, "the file is empty"),
        ('{"text": "a", "labels": ["spam"]}', NAMES, "no column 'label'; did you mean 'labels'"),
        ('{"text": "a", "label": ["ham"]}', NAMES, "label 'ham': expected one of spam, insult, threat"),
        ('{"text": "a", "label": [3]}', NAMES, "label 3: expected 0 to 2"),
        ('{"text": "a", "label": ["spam"]}', None, "the checkpoint does not name its classes"),
    ],
)
def test_broken_rows_are_one_clear_error(tmp_path: Path, content: str, label2id: Any, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        labels_of(path, label2id)


# --- what is made of logits ---


def logits(rows: int = 4, classes: int = 3, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task() -> MultiLabelClassification:
    return MultiLabelClassification(dataset="owner/name")


def test_losses_average_to_torchs_binary_cross_entropy():
    z, labels = logits(), (logits(seed=1) > 0).double()
    losses = task().sample_losses(z, {"labels": labels})
    torch.testing.assert_close(losses.mean(), nn.functional.binary_cross_entropy_with_logits(z, labels))
    assert losses.shape == (4,)


def test_divergence_is_the_mean_kl_of_the_classes_own_probabilities():
    z, dense = logits(), logits(seed=1)
    both = [torch.stack([x / 3, torch.zeros_like(x)], dim=2).log_softmax(2) for x in (dense, z)]
    expected = 9 * (both[0].exp() * (both[0] - both[1])).sum(2).mean(1)
    torch.testing.assert_close(task().divergences(z, dense, temperature=3.0), expected)
    assert float(task().divergences(z, z).abs().max()) == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_curvature_is_the_hessian_of_the_divergence(temperature: float):
    for row in logits():
        hessian = torch.autograd.functional.hessian(
            lambda moved, row=row: task().divergences(moved[None], row[None], temperature=temperature)[0], row
        )
        jacobian = torch.autograd.functional.jacobian(
            lambda moved: task().curvature(moved[None], temperature=temperature, generator=np.random.default_rng(0))[0],
            row,
        )
        torch.testing.assert_close(jacobian.T @ jacobian, hessian, rtol=1e-8, atol=1e-12)


def test_metrics_match_scikit_learn():
    outputs, labels = logits(60).numpy(), (logits(60, seed=1) > 0).numpy()
    samples = [{"labels": row} for row in labels.astype(float).tolist()]
    rows = task().rows(outputs, outputs, samples)
    chosen = outputs > 0
    assert task().metrics(rows) == pytest.approx(
        {
            "micro_f1": sklearn.metrics.f1_score(labels, chosen, average="micro"),
            "macro_f1": sklearn.metrics.f1_score(labels, chosen, average="macro"),
            "subset_accuracy": sklearn.metrics.accuracy_score(labels, chosen),
        }
    )
    assert rows["predictions"][0] == " ".join(str(number) for number in np.flatnonzero(chosen[0]))


def test_the_threshold_is_a_probability():
    sure = task().model_copy(update={"threshold": 0.9})
    outputs = np.array([[3.0, 2.0, -1.0]])  # probabilities 0.95, 0.88, 0.27
    assert sure.rows(outputs, outputs, [{"labels": [1.0, 0.0, 0.0]}])["correct"].tolist() == [True]


def test_nothing_predicted_and_nothing_labelled_is_zero_not_missing():
    outputs = np.full((2, 3), -1.0)
    found = task().metrics(task().rows(outputs, outputs, [{"labels": [0.0] * 3}] * 2))
    assert found == {"micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0}


# --- regression ---


def scored(path: Path, **options: Any) -> Regression:
    return Regression(train=path, validation=path, **options)


def test_a_regression_reads_numbers_of_texts_and_pairs(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b,label\nthe cat,a dog,-1\na bird,the,2.5\n")
    rows = scored(path, text="a", text_pair="b").load("train", tiny_tokenizer())
    assert rows["labels"][:] == [-1.0, 2.5]
    assert tiny_tokenizer().decode(rows[0]["input_ids"]) == "[CLS] the cat [SEP] a dog [SEP]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("text,label\na,good\n", "label 'good': expected a number"),
        ("text,score\na,1\n", "no column 'label'; columns: text, score"),
    ],
)
def test_labels_that_are_no_numbers_are_one_clear_error(tmp_path: Path, content: str, message: str):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        scored(path).load("train", tiny_tokenizer())


def test_a_regression_reports_correlations_and_the_squared_error():
    outputs = np.array([[1.0], [2.0], [4.0]])
    task = Regression(dataset="owner/name")
    found = task.metrics(task.rows(outputs, outputs, [{"labels": value} for value in (1.0, 3.0, 4.0)]))
    assert found["spearman"] == 1.0
    assert found["negative_mse"] == pytest.approx(-1 / 3)
    assert task.problem_type == "regression"
