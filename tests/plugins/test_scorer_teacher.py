"""The heads that a scorer learns to keep first: half of every layer, and no swap of two makes them better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressor.model import masked
from compressor_plugins.methods._head_scores import output_norms
from compressor_plugins.methods._relations import relation_loss
from compressor_plugins.methods._scorer_teacher import Search, is_lower, lessons
from compressor_plugins.methods._scorer_texts import Texts
from compressor_plugins.methods._sentences import Sentences, draw_sentences, sentence_vectors
from tests.plugins.test_smp import method, session_of, training


@pytest.fixture
def rows() -> Sentences:
    session = session_of(num_hidden_layers=2)
    with torch.no_grad():
        for name, parameter in session.model.named_parameters():
            if "attention" in name and parameter.ndim > 1:
                parameter.mul_(10)  # so that heads matter
    return replace(draw_sentences(method(training()), session, session.model), batch_size=8)


def texts() -> list[Texts]:
    session = session_of(num_hidden_layers=2)
    return [Texts(session.task, session.task.load("train", session.tokenizer))]


def halves(rows: Sentences) -> dict[str, torch.Tensor]:
    return {group.name: torch.tensor([True, True, False, False]) for group in rows.groups}


def test_the_loss_is_that_of_relations_in_units_of_the_first_masks(rows: Sentences):
    search = Search((rows,), halves(rows))
    other = {name: ~keep for name, keep in halves(rows).items()}

    def plain(keep: dict[str, torch.Tensor]) -> float:
        losses = []
        for batch in rows.batches():
            full = sentence_vectors(rows.model, batch, pair=rows.pair)
            with torch.no_grad(), masked(rows.model, rows.groups, keep):
                losses.append(
                    float(relation_loss(sentence_vectors(rows.model, batch, pair=rows.pair), full, pair=rows.pair))
                )
        return float(np.mean(losses))

    assert search.losses(halves(rows)).shape == (5,)
    assert search.losses(halves(rows)).mean() == pytest.approx(1.0)
    assert search.losses(other).mean() == pytest.approx(plain(other) / plain(halves(rows)), rel=1e-5)


def test_no_swap_of_two_heads_is_left_that_helps(rows: Sentences):
    search = Search((rows,), {name: ~keep for name, keep in halves(rows).items()})
    keep = search.run(150, np.random.default_rng(0))
    best = search.losses(keep)
    assert best.mean() < 1
    assert [int(mask.sum()) for mask in keep.values()] == [2, 2]
    for name, mask in keep.items():
        for kept in mask.nonzero().flatten().tolist():
            for removed in (~mask).nonzero().flatten().tolist():
                changed = mask.clone()
                changed[kept], changed[removed] = False, True
                gains = best - search.losses({**keep, name: changed})
                assert gains.mean() <= gains.std(ddof=1) / np.sqrt(len(gains))


@pytest.mark.parametrize(
    ("differences", "lower"),
    [([-0.1], True), ([0.0], False), ([-0.3, -0.1], True), ([-0.4, 0.2], False), ([0.1, 0.3], False)],
)
def test_a_swap_helps_when_it_does_by_more_than_the_standard_error(differences: list[float], *, lower: bool):
    assert is_lower(np.array(differences)) is lower


def test_without_swaps_heads_are_placed_by_their_norms(rows: Sentences):
    places = lessons(rows, texts(), swaps=0, seed=0)
    assert list(places) == [f"1.{group.name}" for group in rows.groups]  # single sentences only
    watched = replace(rows, rows=list(rows.rows))
    for name, norms in output_norms(watched).items():
        assert places[f"1.{name}"].argsort().tolist() == norms.argsort().tolist()
        assert sorted(places[f"1.{name}"].tolist()) == pytest.approx([0.125, 0.375, 0.625, 0.875])


def test_what_is_kept_is_placed_above_what_is_removed(rows: Sentences):
    before, after = (lessons(rows, texts(), swaps=swaps, seed=0) for swaps in (0, 40))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    again = lessons(rows, texts(), swaps=40, seed=0)
    assert all(torch.equal(again[name], after[name]) for name in after)


def test_a_layer_of_one_head_has_nothing_to_swap():
    session = session_of(num_hidden_layers=2, num_attention_heads=1)
    rows: Any = draw_sentences(method(training()), session, session.model)
    places = lessons(rows, texts(), swaps=3, seed=0)
    assert [place.tolist() for place in places.values()] == [[0.5], [0.5]]
