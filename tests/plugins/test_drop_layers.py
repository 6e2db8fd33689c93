"""``drop-layers`` against brute force: every layer really removed, every row really run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressor.errors import InputError
from compressor.model import Masks, shrink
from compressor.model.costs import encoder_macs
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, Registry, Target
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import load
from compressor.run.session import Session
from compressor.testing import TinyTexts, session_on, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.methods import _drop_layers
from compressor_plugins.methods.drop_layers import DropLayers
from compressor_plugins.methods.fisher import Fisher
from compressor_plugins.methods.kprune import KPrune
from tests.plugins.sessions import FAMILIES, Labelled
from tests.toys import squad_recipe

LAYERS = 5


def classes(model_type: str = "bert", **options: Any) -> Session:
    model = tiny_model(model_type, num_hidden_layers=LAYERS)
    return session_on(model, FAMILIES[model_type], Labelled(), **options)


def regression() -> Session:
    return session_on(tiny_model(num_labels=1, num_hidden_layers=LAYERS), Bert(), Labelled())


def embeddings() -> Session:
    return session_on(tiny_model(num_labels=None, num_hidden_layers=LAYERS), Bert(), TinyTexts())


def questions(directory: Path) -> Session:
    registry = Registry.load()
    plan = compile_plan(load_recipe(squad_recipe(directory)), registry)
    return load.open_session(plan, registry, directory, torch.device("cpu"))


SESSIONS: dict[str, Callable[[Path], Session]] = {
    **{name: lambda _, name=name: classes(name) for name in FAMILIES},
    "regression": lambda _: regression(),
    "embeddings": lambda _: embeddings(),
    "questions": questions,
}


@pytest.fixture(params=SESSIONS)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    return SESSIONS[request.param](tmp_path)


def method(layers: float = 0.4, **options: Any) -> DropLayers:
    return DropLayers(target=Target(layers=layers), **options)


def divergence(session: Session, dropped: Collection[int]) -> float:
    """Return the mean divergence from the dense outputs of the model without these layers, all of them removed."""
    smaller = shrink(session.model, session.family, Masks({}), dropped_layers=tuple(dropped))
    found = []
    with torch.no_grad():
        for batch in session.calibration.batches(session.device):
            z, dense = (session.task.output(raw_output(m, batch), batch) for m in (smaller, session.teacher))
            found.append(session.task.divergences(z, dense))
    return float(torch.cat(found).double().mean())


def brute_force(session: Session, dropped: Collection[int] = ()) -> dict[str, float]:
    count = 1 + max(group.index for group in session.groups)
    return {str(one): divergence(session, {*dropped, one}) for one in range(count) if one not in dropped}


def test_once_scores_every_layer_as_removing_it_does(session: Session) -> None:
    pruned = method(search="once").prune(session)
    (scores,) = pruned.metrics["layer_scores"]
    expected = brute_force(session)
    assert scores == pytest.approx(expected, rel=1e-4)
    assert min(expected.values()) > 1e-6
    assert len(set(expected.values())) == len(expected)
    least = sorted(expected, key=expected.__getitem__)[: len(pruned.dropped_layers)]
    assert pruned.dropped_layers == tuple(sorted(map(int, least)))
    assert len(pruned.dropped_layers) == len(expected) - int(0.4 * len(expected))


def test_greedy_is_brute_force_round_by_round(session: Session) -> None:
    pruned = method(search="greedy").prune(session)
    dropped: list[int] = []
    for scores in pruned.metrics["layer_scores"]:
        expected = brute_force(session, dropped)
        assert scores == pytest.approx(expected, rel=1e-4)
        dropped.append(int(min(expected, key=expected.__getitem__)))
    assert len(dropped) >= 2
    assert pruned.dropped_layers == tuple(sorted(dropped))


def test_greedy_and_once_can_differ() -> None:
    sessions = [session_on(tiny_model(num_hidden_layers=LAYERS, seed=n), Bert(), Labelled(), count=8) for n in range(8)]
    pairs = [[method(0.4, search=s).prune(one).dropped_layers for s in ("greedy", "once")] for one in sessions]
    assert any(greedy != once for greedy, once in pairs)


def test_batches_and_padding_do_not_matter() -> None:
    one, other = (method().prune(classes(batch_size=size)) for size in (1, 16))
    for before, after in zip(one.metrics["layer_scores"], other.metrics["layer_scores"], strict=True):
        assert before == pytest.approx(after, rel=1e-4)
    assert one.dropped_layers == other.dropped_layers


def test_the_same_session_gives_the_same_and_is_untouched(session: Session) -> None:
    before = {name: parameter.clone() for name, parameter in session.model.named_parameters()}
    modules = list(session.model.modules())
    first, second = (method().prune(session) for _ in range(2))
    assert first.dropped_layers == second.dropped_layers
    assert first.metrics["layer_scores"] == second.metrics["layer_scores"]
    assert list(session.model.modules()) == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(torch.equal(parameter, before[name]) for name, parameter in session.model.named_parameters())


def test_only_layers_above_run_for_a_trial() -> None:
    session, ran = classes(count=8), [0]
    model: Any = session.model
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda *_: ran.__setitem__(0, ran[0] + 1))
    method(0.6, search="once").prune(session)
    assert ran[0] == LAYERS + LAYERS + sum(range(LAYERS))  # dense, recorded, and those above each


@pytest.mark.parametrize("search", ["greedy", "once"])
@pytest.mark.parametrize("fractions", [(1.0, 0.8, 0.4, 0.2), (0.2, 0.8, 1.0, 0.6)])
def test_one_search_gives_every_target_what_it_gives_alone(search: Any, fractions: tuple[float, ...]) -> None:
    session, searched = classes(), [0]
    targets = [Target(layers=fraction, sequence=7 + fraction) for fraction in fractions]
    alone = [DropLayers(target=target, search=search).prune(session) for target in targets]
    model: Any = session.model
    model.bert.encoder.layer[0].register_forward_hook(lambda *_: searched.__setitem__(0, searched[0] + 1))
    method(min(fractions), search=search).prune(session)
    cost, searched[0] = searched[0], 0
    together = list(method(0.5, search=search).prune_all(session, targets))
    assert searched[0] == cost
    for one, other in zip(together, alone, strict=True):
        assert one.dropped_layers == other.dropped_layers
        assert one.masks == other.masks
        assert {**one.metrics, "seconds": None} == {**other.metrics, "seconds": None}


@pytest.mark.parametrize(("asked", "left"), [(0.2, 1), (0.39, 1), (0.4, 2), (0.79, 3), (1.0, 5)])
def test_never_more_layers_than_asked(asked: float, left: int) -> None:
    session = classes(count=8)
    pruned = method(asked).prune(session)
    assert len(pruned.metrics["layers_kept"]) == LAYERS - len(pruned.dropped_layers) == left
    assert pruned.metrics["macs_kept"] == pytest.approx(left / LAYERS)


def test_no_layer_at_all_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drop_layers.LeaveOneOut, "start", lambda _: pytest.fail("the dense model was run"))
    session = session_on(tiny_model(num_hidden_layers=6), Bert(), Labelled())
    said = r"Target\(layers=0.16\) keeps no layer: the dense model has 6; lowest reachable: 0\.167"
    with pytest.raises(InputError, match=said) as caught:
        method(0.16).prune(session)
    assert "layers: 0.167 or more" in str(caught.value.hint)
    with pytest.raises(InputError, match=said):
        next(method().prune_all(session, [Target(layers=0.5), Target(layers=0.16)]))
    assert _drop_layers.layers_to_keep(Target(layers=0.167), session) == 1


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"macs": 0.5}, {"latency": 0.5}])
def test_other_targets_are_refused(target: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=f"drop-layers takes target.layers; got target.{next(iter(target))}"):
        DropLayers(target=target)  # type: ignore[arg-type]  # pydantic reads it


def applied(session: Session, pruned: Pruned) -> Session:
    smaller = shrink(session.model, session.family, pruned.masks, pruned.weights, dropped_layers=pruned.dropped_layers)
    return replace(session, model=smaller.requires_grad_(False))


def test_the_masks_of_a_session_say_what_is_left_of_the_dense_model(session: Session) -> None:
    pruned = method().prune(session)
    now = applied(session, pruned)
    for group in session.groups:
        assert now.masks.keep[group.name].tolist() == [group.index not in pruned.dropped_layers] * group.units
    assert now.masks == pruned.masks


def test_a_second_drop_counts_from_the_dense_model_and_names_its_layers() -> None:
    session = classes()
    at_once = method(0.4).prune(session)
    halfway = applied(session, method(0.8).prune(session))
    second = method(0.4).prune(halfway)
    assert len(second.dropped_layers) == 2
    assert second.metrics["layers_kept"] == at_once.metrics["layers_kept"]
    for scores, expected in zip(second.metrics["layer_scores"], at_once.metrics["layer_scores"][1:], strict=True):
        assert scores == pytest.approx(expected, rel=1e-4)
    assert second.metrics["macs_kept"] == pytest.approx(0.4)
    again = applied(halfway, second)
    config: Any = again.model.config
    assert config.kept_layers == at_once.metrics["layers_kept"]
    assert method(0.4).prune(again).dropped_layers == ()


@pytest.mark.parametrize("width", [Fisher, KPrune])
@pytest.mark.parametrize("later_run", [False, True])
def test_width_pruning_after_dropping_keeps_its_budget_of_the_dense_model(*, width: Any, later_run: bool) -> None:
    session = classes()
    shallow = applied(session, method(0.8).prune(session))
    if later_run:
        shallow = replace(shallow, teacher=shallow.model)
    pruned = width(target=Target(macs=0.5)).prune(shallow)
    left = applied(shallow, pruned)
    length = session.calibration.mean_length
    share = encoder_macs(left.model, left.groups, length) / encoder_macs(
        left.teacher, left.family.groups(left.teacher), length
    )
    assert pruned.metrics["macs_kept"] == pytest.approx(share)
    assert 0.45 < share <= 0.5
    gone = [] if later_run else [n for n, keep in left.masks.keep.items() if not keep.any()]
    config: Any = left.model.config
    dense = session.family.groups(session.model)
    lost = [group.name for group in dense if group.index not in config.kept_layers]
    assert len(lost) == 2
    assert later_run or set(lost) <= set(gone)
    kept = sum(int(keep.sum()) for keep in left.masks.keep.values())
    assert kept == sum(group.units for group in left.groups)


def test_metrics_are_plain_data() -> None:
    metrics = method().prune(classes()).metrics
    assert json.loads(json.dumps(dict(metrics), allow_nan=False)) == dict(metrics)
    assert set(metrics["seconds"]) == {"dense", "scores"}


def test_a_layer_that_cannot_go_stays_and_the_others_compete() -> None:
    model = tiny_model("deberta-v2", conv_kernel_size=3, conv_act="gelu", num_hidden_layers=LAYERS)
    session = session_on(model, DebertaV2(), Labelled(), count=8)
    for search in ("greedy", "once"):
        pruned = method(1 / LAYERS, search=search).prune(session)
        assert pruned.dropped_layers == tuple(range(1, LAYERS))
        assert all("0" not in scores for scores in pruned.metrics["layer_scores"])


def test_fewer_layers_than_a_family_lets_go_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bert, "fixed_layers", lambda *_: {0: "this one", 1: "and that one"})
    with pytest.raises(InputError, match=f"keeps 1 of {LAYERS} layers, too few: and that one"):
        method(1 / LAYERS).prune(classes())
