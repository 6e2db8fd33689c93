from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import ndcg_score

from compressor.errors import InputError
from compressor.testing import tiny_tokenizer
from compressor_plugins.tasks._ranking import ndcg, reciprocal_rank
from compressor_plugins.tasks.reranking import Reranking
from tests.tables import candidate_rows, write_lines

ONE, TWO = {"LABEL_0": 0}, {"no": 0, "yes": 1}


def task(path: Path, **options: Any) -> Reranking:
    return Reranking(train=path, validation=path, **options)


def test_a_row_is_a_query_with_one_of_its_documents(tmp_path: Path):
    rows = [
        {"query": "the cat", "documents": ["a dog", "a fish"], "relevance": [0, 2]},
        {"query": "alone", "documents": ["a dog"], "relevance": [1]},
        {"query": "a bird", "documents": ["the", "a", "was"], "relevance": [0, 0, 0.5]},
    ]
    made = task(write_lines(tmp_path / "rows.jsonl", rows))
    found = made.load("validation", tiny_tokenizer(), label2id=ONE)
    assert [tiny_tokenizer().decode(ids) for ids in found["input_ids"]][:2] == [
        "[CLS] the cat [SEP] a dog [SEP]",
        "[CLS] the cat [SEP] a fish [SEP]",
    ]
    assert found["example"][:] == [0, 0, 2, 2, 2]
    assert found["relevance"][:] == [0.0, 2.0, 0.0, 0.0, 0.5]
    assert "relevance" not in made.load("train", tiny_tokenizer(), label2id=ONE).column_names


def test_the_score_is_the_one_output_or_the_difference_of_two():
    made = Reranking(dataset="owner/name")
    one, two = torch.randn(3, 1), torch.randn(3, 2)
    assert torch.equal(made.output(one, {}), one)
    probability = two.softmax(dim=1)[:, 1:]
    torch.testing.assert_close(made.output(two, {}).sigmoid(), probability)


def test_curvature_is_that_of_the_squared_difference_of_scores():
    z = torch.tensor([[1.5]], dtype=torch.float64, requires_grad=True)
    made = Reranking(dataset="owner/name")
    scalars = made.curvature(z, generator=np.random.default_rng(0))
    (gradient,) = torch.autograd.grad(scalars.sum(), z)
    hessian = torch.autograd.functional.hessian(lambda moved: made.divergences(moved, z.detach())[0], z.detach())
    torch.testing.assert_close(gradient**2, hessian.reshape(1, 1))


def test_ndcg_and_reciprocal_rank_are_scikit_learns_and_by_hand():
    draw = np.random.default_rng(0)
    for size in (2, 5, 30):
        scores, grades = draw.normal(size=size), draw.integers(0, 3, size)
        expected = ndcg_score([grades], [scores], k=10, ignore_ties=True)
        assert ndcg(scores, grades) == pytest.approx(expected)
    assert reciprocal_rank(np.array([3.0, 2.0, 1.0]), np.array([0, 0, 2])) == pytest.approx(1 / 3)
    assert reciprocal_rank(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5  # of equal scores the list's first is first
    assert ndcg(np.ones(2), np.zeros(2)) == reciprocal_rank(np.ones(2), np.zeros(2)) == 0.0


def test_metrics_are_means_over_queries():
    draw = np.random.default_rng(0)
    numbers = [0] * 4 + [3] * 6
    scores, dense = draw.normal(size=(2, 10, 1))
    samples = [{"example": number} for number in numbers]
    made = Reranking(dataset="owner/name")
    rows = made.rows(scores, dense, samples)
    parts = (slice(0, 4), slice(4, 10))
    expected = {
        name: np.mean([measure(scores[part, 0], dense[part, 0]).statistic for part in parts])
        for name, measure in (("spearman", spearmanr), ("pearson", pearsonr))
    }
    assert made.metrics(rows) == pytest.approx(expected)
    assert made.metrics(made.rows(dense, dense, samples)) == {"spearman": 1.0, "pearson": 1.0}
    judged = [{**sample, "relevance": float(index % 3)} for index, sample in enumerate(samples)]
    assert set(made.metrics(made.rows(scores, dense, judged))) == {"spearman", "pearson", "ndcg", "mrr"}


def test_a_dense_model_that_scores_all_documents_alike_agrees_with_itself():
    made, same = Reranking(dataset="owner/name"), np.ones((2, 1))
    samples = [{"example": 0}] * 2
    assert made.metrics(made.rows(same, same, samples))["spearman"] == 1.0
    assert made.metrics(made.rows(np.array([[1.0], [2.0]]), same, samples))["spearman"] == 0.0


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "the file is empty"),
        ('{"query": "a", "docs": ["a", "b"]}', {}, "no column 'documents'; did you mean 'docs'|columns: query, docs"),
        ('{"query": "a", "documents": "a b"}', {}, "row 1: expected a list of texts in 'documents'; got 'a b'"),
        ('{"query": "a", "documents": ["a"]}', {}, "no query has two documents"),
        ('{"query": "a", "documents": ["a", "b"], "relevance": [1]}', {}, "row 1: 2 documents and 1 judgements"),
        ('{"query": "a", "documents": ["a", "b"]}', {"gated": "ndcg"}, "no column 'relevance'"),
    ],
)
def test_broken_rows_are_one_clear_error(tmp_path: Path, content: str, options: dict[str, Any], message: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        task(path, **options).load("validation", tiny_tokenizer(), label2id=TWO)


def test_three_classes_are_no_score(tmp_path: Path):
    made = task(write_lines(tmp_path / "rows.jsonl", candidate_rows(3, seed=0)))
    with pytest.raises(InputError, match=r"wrong task for this checkpoint: .* has 3: a, b, c"):
        made.load("train", tiny_tokenizer(), label2id={"a": 0, "b": 1, "c": 2})
