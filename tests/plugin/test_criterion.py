from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressor.errors import CompressorError
from compressor.plugin import read_scores
from compressor_plugins.criteria.magnitude import Magnitude

SHAPES = {"a": (2, 3), "b": (3, 3)}


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": torch.zeros(2)}, r"scores of 'a': expected shape \(2, 3\), got \(2,\)"),
        (
            {"a": torch.zeros(2, 3), "b": torch.full((3, 3), torch.nan)},
            "scores of 'b': expected numbers, 9 of 9 are NaN",
        ),
        ({"c": torch.zeros(2, 3)}, "scores of 'c', which is none of the weights"),
    ],
)
def test_scores_that_no_method_can_compare_are_refused_with_the_criterions_name(scores: Any, said: str):
    run: Any = SimpleNamespace(scores=lambda: scores)
    with pytest.raises(CompressorError, match=f"criterion 'magnitude' .*{said}") as caught:
        read_scores(Magnitude(), run, SHAPES)
    assert "assert_criterion_conforms" in caught.value.hint


def test_weights_that_were_not_seen_may_be_missing():
    run: Any = SimpleNamespace(scores=lambda: {"a": torch.ones(2, 3)})
    assert set(read_scores(Magnitude(), run, SHAPES)) == {"a"}
