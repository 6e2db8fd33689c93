from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from compressor.plugin import Task
from compressor.verify.doubts import doubts
from compressor.verify.evaluate import compare
from compressor.verify.page import report_page
from compressor.verify.report import model_card, render
from compressor.verify.statistics import Resampling
from compressor_plugins.tasks.embedding import Embedding
from compressor_plugins.tasks.glue import Glue
from tests.verify.reports import run_report

LABELS = [1] * 7 + [0] * 3
RIGHT_9 = [1] * 7 + [0] * 2 + [1]
RIGHT_7 = [1] * 10
RIGHT_1 = [1 - one for one in RIGHT_9]


def found(answers: list[int], task: Task | None = None, labels: list[int] = LABELS) -> list[str]:
    """Return the doubts about a dense model with these answers."""
    outputs = np.eye(2)[answers]
    samples = [{"input_ids": [1], "labels": label} for label in labels]
    return list(doubts(compare(task or Glue(subset="mrpc"), outputs, outputs, samples, Resampling(resamples=50))))


@pytest.mark.parametrize("answers", [RIGHT_7, RIGHT_1], ids=["one class", "classes the other way round"])
@pytest.mark.parametrize("subset", ["mrpc", "cola"])
def test_a_dense_model_that_is_no_better_than_the_commonest_class_is_doubted(answers: list[int], subset: Any):
    (doubt,) = found(answers, Glue(subset=subset))
    assert "the commonest class (0.7000)" in doubt
    assert "label2id" in doubt
    assert f"{np.mean(np.array(answers) == LABELS):.4f} of the rows right" in doubt


def test_a_dense_model_that_is_better_is_not_doubted():
    assert found(RIGHT_9) == []


@pytest.mark.parametrize("answers", [RIGHT_7, RIGHT_9], ids=["all right", "some wrong"])
def test_rows_of_one_class_are_doubted_not_the_model(answers: list[int]):
    (doubt,) = found(answers, labels=[1] * 10)
    assert doubt.startswith("all labels of these rows are one class")


def test_what_cannot_be_right_is_not_doubted():
    assert found(RIGHT_1, Embedding(corpus="python-docs")) == []
    table = {"correct": np.zeros(4, dtype=bool), "predictions": np.zeros(4)}  # as of answers, which are no classes
    answering: Any = SimpleNamespace(
        rows=lambda *_: table, metrics=lambda _: {"f1": 0.0}, metric="f1", label_free=True, name="answers"
    )
    assert found(RIGHT_1, answering) == []
    scores = np.linspace(0, 1, 10)[:, None]
    samples = [{"input_ids": [1], "labels": 1.0} for _ in scores]
    assert list(doubts(compare(Glue(subset="stsb"), scores, scores, samples, Resampling(resamples=5)))) == []


def test_a_warning_is_on_the_screen_in_the_card_and_in_the_page():
    report = {**run_report(), "warnings": ["the dense model is doubtful"]}
    screen = StringIO()
    render(report, Console(file=screen, width=200))
    assert "warning: the dense model is doubtful" in screen.getvalue()
    assert "* **Warning:** the dense model is doubtful." in model_card(report)
    assert "Warning: the dense model is doubtful." in report_page(report)
