"""Label-free scores of heads against brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressor.model import masked, shrink
from compressor.model.masks import Masks
from compressor.plugin import Target
from compressor.testing import session_on, tiny_model
from compressor_plugins.methods._head_scores import curvatures, output_norms, random_scores, relation_changes
from compressor_plugins.methods._relations import relation_loss
from compressor_plugins.methods._sentences import Sentences, cut, draw_sentences, sentence_vectors
from compressor_plugins.methods.heads import Heads
from tests.plugins.sessions import FAMILIES, Labelled, label_free, labelled


def rows_of(session: Any, **options: Any) -> Sentences:
    return draw_sentences(Heads(target=Target(heads=0.5), **options), session, session.model)


@pytest.mark.parametrize("mode", ["pair", "single"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_relation_is_the_loss_without_each_head_removed(model_type: str, mode: Any):
    session = labelled(model_type, batch_size=8)
    rows = rows_of(session, mode=mode, sentences=16)
    for name, scores in relation_changes(rows).items():
        for head, score in enumerate(scores.tolist()):
            keep = torch.arange(4) != head
            smaller = shrink(session.model, session.family, Masks({name: keep}))
            with torch.no_grad():
                losses = [
                    float(
                        relation_loss(
                            *(sentence_vectors(m, batch, pair=rows.pair) for m in (smaller, session.model)),
                            pair=rows.pair,
                        )
                    )
                    for batch in rows.batches()
                ]
            assert score == pytest.approx(np.mean(losses), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_output_norm_is_what_a_head_adds(model_type: str):
    session = labelled(model_type)
    rows, totals, tokens = rows_of(session, sentences=8), {}, 0
    for batch in rows.batches():
        real = batch["attention_mask"].bool()
        tokens += int(real.sum())
        for group in rows.groups:
            consumer = session.model.get_submodule(group.consumer.module)
            for head in range(group.units):
                given = []
                hook = consumer.register_forward_hook(lambda _, __, output, given=given: given.append(output))
                with torch.no_grad(), hook:
                    for keep in (torch.arange(4) == head, torch.zeros(4, dtype=torch.bool)):
                        with masked(session.model, [group], {group.name: keep}):
                            sentence_vectors(session.model, batch, pair=False)
                added = (given[0] - given[1])[real].norm(dim=1).sum()
                totals[group.name, head] = totals.get((group.name, head), 0.0) + float(added)
    for name, scores in output_norms(rows).items():
        assert scores.tolist() == pytest.approx([totals[name, head] / tokens for head in range(4)], rel=1e-4)


def test_curvature_is_that_of_the_divergence_at_the_gate():
    session = session_on(tiny_model(), FAMILIES["bert"], Labelled())
    session.model.double()
    rows = rows_of(session, sentences=8)
    found = curvatures(session, rows)
    step, group = 1e-3, rows.groups[1]
    for head in (0, 3):
        total = 0.0
        for batch in rows.batches():
            outputs = []
            for change in (0.0, step):
                gate = torch.ones(4, dtype=torch.float64)
                gate[head] += change
                with torch.no_grad(), masked(session.model, [group], {group.name: gate}):
                    outputs.append(session.model(**batch).logits)
            total += float(session.task.divergences(outputs[1], outputs[0]).sum())
        assert float(found[group.name][head]) == pytest.approx(2 * total / len(rows.rows) / step**2, rel=1e-2)


@pytest.mark.parametrize("score", [relation_changes, output_norms])
def test_padding_and_batches_do_not_matter(score: Any):
    rows = rows_of(labelled(), sentences=16)
    wider = replace(rows, rows=[*rows.rows[:-1], {**rows.rows[-1]}], batch_size=rows.batch_size)
    assert {name: values.tolist() for name, values in score(wider).items()} == {
        name: values.tolist() for name, values in score(rows).items()
    }
    if score is output_norms:
        one = score(replace(rows, batch_size=1))
        for name, values in score(rows).items():
            torch.testing.assert_close(one[name], values, rtol=1e-5, atol=1e-7)


def test_random_scores_are_of_the_seed():
    rows = rows_of(labelled())
    one, same, other = (random_scores(rows, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("criterion", ["relation", "output-norm", "curvature", "random"])
def test_every_criterion_gives_the_same_masks_twice_and_leaves_the_model_alone(criterion: Any):
    session = label_free()
    before = {name: parameter.clone() for name, parameter in session.model.named_parameters()}
    modules = list(session.model.modules())
    one, other = (Heads(target=Target(heads=0.5), criterion=criterion).prune(session) for _ in range(2))
    assert one.masks == other.masks
    assert list(session.model.modules()) == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(torch.equal(parameter, before[name]) for name, parameter in session.model.named_parameters())


def test_a_head_without_output_is_the_first_to_go():
    session = labelled()
    group = [group for group in session.groups if group.kind == "heads"][1]
    consumer: Any = session.model.get_submodule(group.consumer.module)
    with torch.no_grad():
        consumer.weight[:, 2 * group.width : 3 * group.width] = 0
    for criterion in ("relation", "output-norm", "curvature"):
        pruned = Heads(target=Target(heads=0.75), criterion=criterion).prune(session)
        assert pruned.metrics["head_scores"][group.name][2] == 0.0
        assert pruned.masks.keep[group.name].tolist() == [True, True, False, True]


def test_long_rows_are_cut_and_keep_their_last_token():
    row = {"input_ids": list(range(200)), "attention_mask": [1] * 200, "labels": 1}
    assert cut(row) == {"input_ids": [*range(127), 199], "attention_mask": [1] * 128}
    assert cut({"input_ids": [1, 2], "labels": 0}) == {"input_ids": [1, 2]}


def test_pairs_are_told_apart_by_the_pooler_and_where_there_is_none_by_the_first_token():
    session = label_free(count=4)
    rows, model = rows_of(session), session.model
    batch = next(rows.batches())
    encoder: Any = model
    with torch.no_grad():
        outputs = encoder(**batch)
        assert torch.equal(sentence_vectors(model, batch, pair=True), outputs.pooler_output)
        for parameter in encoder.pooler.parameters():
            parameter.zero_()
        assert torch.equal(sentence_vectors(model, batch, pair=True), outputs.last_hidden_state[:, 0])
