"""Which heads go: the published quota of every layer, and one ranking under a budget."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressor.errors import CompressorError, InputError
from compressor.model import Masks, shrink
from compressor.model.costs import encoder_macs, parameters
from compressor.plugin import Target
from compressor.run.session import Session
from compressor.testing import session_on, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.methods._head_masks import budget_for, choose_masks
from compressor_plugins.methods._head_quota import dense_heads, lost_heads, lowest_removed, quota
from compressor_plugins.methods.heads import Heads
from tests.plugins.sessions import FAMILIES, Labelled, label_free, labelled
from tests.plugins.test_latency_target import toy_table

HEADS = 4


def heads_kept(masks: Masks) -> list[int]:
    return [int(mask.sum()) for name, mask in masks.keep.items() if name.endswith("attention")]


def given(session: Session, *rows: list[float]) -> dict[str, torch.Tensor]:
    groups = [group for group in session.groups if group.kind == "heads"]
    return {group.name: torch.tensor(row) for group, row in zip(groups, rows, strict=True)}


def method(**options: Any) -> Heads:
    return Heads(**{"target": Target(heads=0.5), "criterion": "output-norm", **options})


@pytest.mark.parametrize(
    ("heads", "ratio", "lost"),
    [
        (12, 0.0, 0),
        (12, 0.08, 0),
        (12, 1 / 12, 1),
        (12, 0.5, 6),
        (12, 0.99, 11),
        (12, 1.0, 12),
        (10, 1 - 0.9, 1),
        (5, 0.5, 2),
    ],
)
def test_a_quota_rounds_down_and_knows_its_ends(heads: int, ratio: float, lost: int):
    assert quota(heads, ratio) == lost


def test_exactly_so_many_go_and_of_equals_the_later_ones():
    assert lowest_removed(torch.tensor([2.0, 0.0, 2.0, 0.0, 0.0]), 2).tolist() == [True, True, True, False, False]
    assert lowest_removed(torch.zeros(4), 3).tolist() == [True, False, False, False]
    assert lowest_removed(torch.tensor([0.0, 1.0]), 0).tolist() == [True, True]
    assert lowest_removed(torch.tensor([0.0, 1.0]), 2).tolist() == [False, False]


@pytest.mark.parametrize(("asked", "left"), [(1.0, 4), (0.9, 4), (0.75, 3), (0.5, 2), (0.3, 2), (0.25, 1), (0.01, 1)])
def test_every_layer_loses_its_quota(asked: float, left: int):
    pruned = method(target=Target(heads=asked)).prune(labelled())
    assert pruned.metrics["heads_kept"] == heads_kept(pruned.masks) == [left] * 3
    assert pruned.metrics["neurons_kept"] == [48] * 3


def test_a_second_pruning_counts_from_the_dense_model():
    session = labelled()
    first = method(target=Target(heads=0.75)).prune(session)
    later = replace(session, model=shrink(session.model, session.family, first.masks))
    assert set(lost_heads(later, 0.5).values()) == {1}
    second = method(target=Target(heads=0.5)).prune(later)
    assert second.metrics["heads_kept"] == [2] * 3
    assert method(target=Target(heads=0.75)).prune(later).metrics["heads_kept"] == [3] * 3


def test_ragged_and_emptied_layers_keep_what_they_have_left():
    session = labelled()
    groups = [group for group in session.groups if group.kind == "heads"]
    gone = Masks({group.name: torch.arange(4) < left for group, left in zip(groups, (4, 1, 0), strict=True)})
    ragged = replace(session, model=shrink(session.model, session.family, gone))
    pruned = method().prune(ragged)
    assert pruned.metrics["heads_kept"] == [2, 1, 0]
    shrunk = shrink(ragged.model, ragged.family, pruned.masks)
    assert [group.units for group in ragged.family.groups(shrunk) if group.kind == "heads"] == [2, 1, 0]


def test_one_ranking_keeps_the_best_of_all_layers_and_one_of_each():
    session = labelled()
    scores = given(session, [9, 8, 7, 6], [5.0, 4, 3, 2], [0.5, 0.25, 0.1, 0])
    budget: Any = budget_for(Target(macs=0.8), session, 1)
    masks = choose_masks(session, scores, Target(macs=0.8), budget, least=1)
    order = heads_kept(masks)
    assert order == [4, sum(order) - 5, 1]
    assert masks.keep["encoder.layer.2.attention"].tolist() == [True, False, False, False]
    emptied = choose_masks(session, scores, Target(macs=0.8), budget, least=0)
    assert heads_kept(emptied) == [4, sum(order) - 4, 0]


def test_equal_scores_keep_lower_layers_and_lower_indices():
    session = labelled()
    scores = given(session, [1.0] * 4, [1.0] * 4, [1.0] * 4)
    budget: Any = budget_for(Target(params=0.8), session, 1)
    masks = choose_masks(session, scores, Target(params=0.8), budget, least=1)
    kept = torch.cat([masks.keep[name] for name in scores]).tolist()
    assert kept == [True] * 4 + [True, *[False] * 3] + [True, *[False] * 3] or kept[:5] == [True] * 5
    for name in scores:
        own = masks.keep[name].tolist()
        assert own == sorted(own, reverse=True)


@pytest.mark.parametrize("keep", [0.7, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_a_macs_target_is_met_as_closely_as_heads_allow(model_type: str, keep: float):
    session = session_on(tiny_model(model_type), FAMILIES[model_type], Labelled())
    pruned = method(target=Target(macs=keep, sequence=16)).prune(session)
    smaller = shrink(session.model, session.family, pruned.masks)
    fewer = shrink(session.model, session.family, one_head_less(session))
    dense, left, less = (
        encoder_macs(model, session.family.groups(model), 16) for model in (session.model, smaller, fewer)
    )
    assert left <= keep * dense * (1 + 1e-9)
    assert left > keep * dense - (dense - less) or keep == 1.0
    assert pruned.metrics["macs_kept"] == pytest.approx(left / dense)


def one_head_less(session: Session) -> Masks:
    group = session.groups[0]
    return Masks({group.name: torch.arange(group.units) > 0})


@pytest.mark.parametrize("least", [0, 1])
@pytest.mark.parametrize("latency", [0.8, 0.9, 1.0])
def test_a_latency_target_is_met_by_heads_alone(latency: float, least: int, monkeypatch: pytest.MonkeyPatch):
    table = toy_table()
    monkeypatch.setattr(Session, "latency_table", lambda *_, **__: table)
    session = labelled()
    pruned = method(target=Target(latency=latency), least_heads=least).prune(session)
    predicted = table.ratio([(g.kind, int(pruned.masks.keep[g.name].sum())) for g in session.groups])
    assert predicted <= latency + 1e-9
    assert pruned.metrics["latency_target"]["predicted"] == pytest.approx(predicted)
    assert pruned.metrics["neurons_kept"] == [48] * 3
    assert min(pruned.metrics["heads_kept"]) >= least


def test_a_latency_that_heads_cannot_reach_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Session, "latency_table", lambda *_, **__: toy_table())
    with pytest.raises(InputError, match="cannot be met by removing heads alone"):
        method(target=Target(latency=0.4)).prune(labelled())


def test_a_parameter_target_is_met():
    session = labelled()
    pruned = method(target=Target(params=0.8)).prune(session)
    smaller = shrink(session.model, session.family, pruned.masks)
    assert parameters(smaller) < parameters(session.model)
    assert pruned.metrics["neurons_kept"] == [48] * 3


def test_what_heads_alone_cannot_reach_is_refused_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Heads, "head_scores", lambda *_: pytest.fail("heads were scored"))
    with pytest.raises(InputError, match=r"costs 0\.\d{3} of the dense .* leaves 0\.300") as caught:
        method(target=Target(macs=0.3)).prune(labelled())
    assert "obs, fisher, kprune" in str(caught.value)


@pytest.mark.parametrize("heads", [0, -0.5, 1.5])
def test_a_share_of_heads_out_of_range_is_refused(heads: float):
    with pytest.raises(ValidationError):
        Heads(target={"heads": heads})  # type: ignore[arg-type]  # pydantic reads it


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"layers": 0.5}])
def test_other_targets_are_refused(target: dict[str, float]):
    with pytest.raises(ValidationError, match=r"expected target.heads, target.macs"):
        Heads(target=target)  # type: ignore[arg-type]  # pydantic reads it


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_scores_that_cannot_be_ranked_are_refused(value: float):
    session = labelled()
    scores = given(session, [value, 1, 1, 1], [1.0] * 4, [1.0] * 4)
    with pytest.raises(CompressorError, match="expected numbers, not negative"):
        choose_masks(session, scores, Target(heads=0.5), None, least=1)


def test_a_sweep_scores_once_and_gives_what_each_target_gives_alone(monkeypatch: pytest.MonkeyPatch):
    session = labelled()
    targets = [Target(heads=0.75), Target(macs=0.8), Target(heads=0.25)]
    alone = [method(target=target).prune(session) for target in targets]
    calls = []
    score = Heads.head_scores
    monkeypatch.setattr(Heads, "head_scores", lambda *given: calls.append(1) or score(*given))
    together = list(method().prune_all(session, targets))
    assert len(calls) == 1
    assert [one.masks for one in together] == [one.masks for one in alone]


def test_metrics_are_plain_data_and_say_what_was_read():
    pruned = method(sentences=16).prune(label_free())
    assert json.loads(json.dumps(dict(pruned.metrics), allow_nan=False)) == dict(pruned.metrics)
    assert pruned.metrics["sentences"] == 16
    assert pruned.metrics["mode"] == "single"
    assert method(mode="pair").prune(labelled()).metrics["mode"] == "pair"


def test_layers_that_were_dropped_before_are_not_counted():
    session = session_on(tiny_model(num_hidden_layers=4), Bert(), Labelled())
    shallow = replace(session, model=shrink(session.model, session.family, Masks({}), dropped_layers=(1,)))
    assert dense_heads(session) == dict.fromkeys(range(4), 4)
    assert method().prune(shallow).metrics["heads_kept"] == [2] * 3
