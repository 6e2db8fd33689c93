from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from compressor.errors import InputError
from compressor_plugins.metrics.roc_auc import RocAuc


def test_the_area_is_scikit_learns_for_two_classes_for_several_and_for_many_labels():
    draw = np.random.default_rng(0)
    for classes in (2, 4):
        outputs = draw.normal(size=(80, classes)).round(1)  # with ties
        labels = draw.integers(0, classes, 80)
        odds = outputs[:, 1] - np.logaddexp.reduce(np.delete(outputs, 1, axis=1), axis=1)
        expected = sklearn.metrics.roc_auc_score(labels == 1, odds)
        assert RocAuc().compute({"outputs": outputs, "labels": labels}) == pytest.approx(expected)
    many = draw.integers(0, 2, (80, 4)) > 0
    expected = sklearn.metrics.roc_auc_score(many[:, 2], outputs[:, 2])
    assert RocAuc(of=2).compute({"outputs": outputs, "labels": many}) == pytest.approx(expected)


def test_one_side_alone_is_chance():
    assert RocAuc().compute({"outputs": np.eye(2), "labels": np.ones(2, int)}) == 0.5


def test_a_task_without_the_class_is_an_input_error():
    with pytest.raises(InputError, match="the task has no classes; its table has cosine"):
        RocAuc().compute({"cosine": np.ones(3)})
    with pytest.raises(InputError, match="the task has no classes"):
        RocAuc(of=0).compute({"outputs": np.ones((3, 1)), "labels": np.ones(3)})
    with pytest.raises(InputError, match="expected of to be from 0 to 1, got 2"):
        RocAuc(of=2).compute({"outputs": np.eye(2), "labels": np.ones(2, int)})
