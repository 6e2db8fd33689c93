from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from compressor.errors import InputError
from compressor.model import Masks, shrink
from compressor.model.costs import encoder_macs, parameters
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, Target
from compressor.prune import layer_names, token_weights, unpruned
from compressor.run.data import Calibration
from compressor.run.session import Session
from compressor.testing import (
    assert_masked_equals_shrunk,
    assert_onnx_equals_torch,
    named_plan,
    session_on,
    tiny_batch,
    tiny_model,
    tiny_tokenizer,
)
from compressor_plugins.exporters.onnx import OnnxExporter
from compressor_plugins.families.bert import Bert
from compressor_plugins.methods import _obs
from compressor_plugins.methods._latency import budget_of
from compressor_plugins.methods._obs import counts_of
from compressor_plugins.methods._obs_points import Point, updated
from compressor_plugins.methods.obs import Obs
from compressor_plugins.tasks.squad import Squad
from tests.model.test_latency_table import costs
from tests.plugins.sessions import (
    FAMILIES,
    Labelled,
    assert_lossless_by_tuning,
    label_free,
    labelled,
    make_twin,
)
from tests.plugins.test_latency_target import toy_table
from tests.toys import write_questions

KEEPS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
TWO_LAYOUTS = pytest.mark.parametrize("model_type", ["bert", "distilbert"])


def obs(macs: float = 0.5, **options: Any) -> Obs:
    return Obs(target=Target(macs=macs), **options)


def prune_all(session: Session, targets: Sequence[Target], **options: Any) -> list[Pruned]:
    return list(Obs(target=targets[0], **options).prune_all(session, targets))


def smaller_of(session: Session, pruned: Pruned) -> Any:
    return shrink(session.model, session.family, pruned.masks, pruned.weights)


def divergence(session: Session, model: Any) -> float:
    total = 0.0
    for batch in session.calibration.batches(session.device):
        with torch.no_grad():
            dense, found = (session.task.output(raw_output(each, batch), batch) for each in (session.model, model))
        total += float(session.task.divergences(found, dense).sum())
    return total


def assert_same(found: Pruned, expected: Pruned) -> None:
    assert found.masks == expected.masks
    assert found.weights.keys() == expected.weights.keys()
    assert [name for name, weight in expected.weights.items() if not torch.equal(found.weights[name], weight)] == []


# --- budgets ---


@pytest.mark.parametrize("model_type", FAMILIES)
def test_macs_never_exceed_their_target_and_come_close_to_it(model_type: str) -> None:
    session = labelled(model_type, count=16)
    length = session.calibration.mean_length
    whole = encoder_macs(session.model, session.groups, length)
    for keep, pruned in zip(KEEPS, prune_all(session, [Target(macs=keep) for keep in KEEPS]), strict=True):
        smaller = smaller_of(session, pruned)
        left = encoder_macs(smaller, session.family.groups(smaller), length) / whole
        assert left == pytest.approx(pruned.metrics["macs_kept"])
        assert keep - 0.04 < left <= keep + 1e-9


def test_parameters_never_exceed_their_target_and_come_close_to_it() -> None:
    session = labelled(count=16)
    emptied = shrink(session.model, session.family, Masks({n: ~m for n, m in unpruned(session.groups).keep.items()}))
    fixed = parameters(emptied)
    whole = parameters(session.model) - fixed
    for keep, pruned in zip(KEEPS, prune_all(session, [Target(params=keep) for keep in KEEPS]), strict=True):
        left = (parameters(smaller_of(session, pruned)) - fixed) / whole
        assert keep - 0.04 < left <= keep + 1e-9


@pytest.mark.parametrize("amount", ["macs", "params"])
@TWO_LAYOUTS
def test_a_target_of_everything_returns_everything(model_type: str, amount: str) -> None:
    session = labelled(model_type)
    pruned = Obs(target=Target(**{amount: 1.0})).prune(session)
    assert all(mask.all() for mask in pruned.masks.keep.values())
    assert pruned.metrics["predicted_divergence"] == 0.0
    for name, weight in pruned.weights.items():
        torch.testing.assert_close(weight, session.model.get_parameter(name).detach(), rtol=0, atol=1e-5)
    assert divergence(session, smaller_of(session, pruned)) < 1e-6


def test_tokens_of_a_target_are_what_macs_are_counted_at() -> None:
    session = labelled()
    pruned = Obs(target=Target(macs=0.5, sequence=100)).prune(session)
    smaller = smaller_of(session, pruned)
    left = encoder_macs(smaller, session.family.groups(smaller), 100)
    assert left <= 0.5 * encoder_macs(session.model, session.groups, 100)
    assert pruned.metrics["sequence"] == 100


def test_less_is_predicted_to_be_lost_where_more_is_kept() -> None:
    session = labelled()
    predicted = [found.metrics["predicted_divergence"] for found in prune_all(session, [Target(macs=k) for k in KEEPS])]
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[0] > 0


@pytest.mark.parametrize("units", [1, 3, 48, 512, 3072])
@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
def test_levels_descend_to_none_in_steps_that_may_end_anywhere_below(units: int, kind: Any) -> None:
    group = replace(labelled(count=8).groups[kind == "ffn_neurons"], units=units)
    counts = counts_of(group)
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == 0
    assert counts[0] < units
    if kind == "heads":
        assert counts == list(range(units))[::-1]
    else:
        assert 1 in counts or units == 1


def test_the_split_of_a_latency_with_odd_prices_equals_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    table = toy_table(
        layers=2,
        heads=costs((0, 1, 2, 3, 4), (0.0, 0.9, 0.7, 1.9, 1.6)),
        ffn_neurons=costs((0, 4, 16, 32, 48), (0.0, 1.4, 0.6, 2.9, 2.4)),
    )
    monkeypatch.setattr(Session, "latency_table", lambda *_, **__: table)
    session = session_on(tiny_model(num_hidden_layers=2), Bert(), Labelled(), count=16)
    _, orders = statistics_and_orders(obs(), session)
    every = list(itertools.product(*(range(len(orders[group.name].counts)) for group in session.groups)))
    prices, losses = np.zeros(len(every)), np.zeros(len(every))
    for group, levels in zip(session.groups, np.array(every).T, strict=True):
        order = orders[group.name]
        prices += np.array([table.milliseconds(group.kind, count) for count in order.counts])[levels]
        losses += np.array(order.losses)[levels]
    ratios = np.array([table.at(price) for price in prices]) / table.dense_ms
    assert len(every) > 10_000
    for latency in (0.1, 0.3, 0.5, 0.7, 0.9):
        point = Point.of(session, orders, budget_of(Target(latency=latency), session, session.calibration.mean_length))
        kept = [(group.kind, point.counts[group.name]) for group in session.groups]
        assert table.ratio(kept) <= latency + 1e-9
        assert point.predicted == pytest.approx(losses[ratios <= latency].min(), rel=1e-12)
        assert point.predicted == pytest.approx(
            sum(
                order.losses[order.counts.index(count)]
                for order, count in ((orders[group.name], point.counts[group.name]) for group in session.groups)
            )
        )


@pytest.mark.parametrize("latency", [0.15, 0.4, 0.6, 0.9, 1.0])
def test_the_predicted_latency_is_within_the_target(latency: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(Session, "latency_table", lambda _, **request: (asked.append(request), toy_table())[1])
    session = labelled()
    pruned = Obs(target=Target(latency=latency, batch=8, sequence=33.2, threads=2)).prune(session)
    predicted = toy_table().ratio([(g.kind, int(pruned.masks.keep[g.name].sum())) for g in session.groups])
    assert latency - 0.1 < predicted <= latency + 1e-9
    assert pruned.metrics["latency_target"]["predicted"] == pytest.approx(predicted)
    assert asked == [{"batch": 8, "sequence": 34, "threads": 2, "provider": "cpu"}]


def test_a_target_out_of_reach_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "latency_table", lambda *_, **__: toy_table())
    monkeypatch.setattr(_obs, "dense_statistics", lambda *_: pytest.fail("statistics were measured"))
    targets = [Target(macs=0.5), Target(latency=0.01)]
    with pytest.raises(InputError, match=r"lowest reachable ratio: 0\.083"):
        prune_all(labelled(), targets)


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"heads": 0.5}, {"layers": 0.5}])
def test_targets_without_a_price_are_refused_in_one_error(target: dict[str, float]) -> None:
    with pytest.raises(ValidationError) as caught:
        Obs(target=target)
    (error,) = caught.value.errors()
    expected = f"obs takes target.macs, .params, .latency or .latency_ms; got target.{next(iter(target))}"
    assert expected in error["msg"]


def test_a_model_without_units_is_refused() -> None:
    session = labelled(count=8)
    empty = shrink(session.model, session.family, Masks({n: ~m for n, m in unpruned(session.groups).keep.items()}))
    with pytest.raises(InputError, match="nothing left to prune"):
        obs().prune(replace(session, model=empty, teacher=empty, plan=named_plan("empty")))


# --- what is kept, and what it gives ---


@TWO_LAYOUTS
def test_targets_together_give_what_each_gives_alone(model_type: str) -> None:
    targets = [Target(macs=0.6), Target(params=0.5), Target(macs=0.1)]
    together = prune_all(labelled(model_type, count=16), targets)
    for target, found in zip(targets, together, strict=True):
        assert_same(found, Obs(target=target).prune(labelled(model_type, count=16)))
    assert len({str(found.metrics["neurons_kept"]) for found in together}) > 1


@pytest.mark.parametrize("build", [labelled, label_free])
def test_the_same_seed_gives_the_same_masks_and_weights(build: Any) -> None:
    first, second = (obs(0.4).prune(build()) for _ in range(2))
    assert_same(first, second)
    assert first.weights


def questions(place: Path) -> Session:
    write_questions(place / "train.json", 24, seed=0)
    task = Squad(path=place, max_length=32, stride=8)
    rows = task.load("train", tiny_tokenizer()).to_list()
    model = tiny_model(head="question-answering").requires_grad_(False)
    session = session_on(model, Bert(), Labelled())
    return replace(session, model=model, teacher=model, task=task, calibration=Calibration(rows, 8, tiny_tokenizer()))


def sessions(kind: str, place: Path) -> Session:
    if kind == "squad":
        return questions(place)
    if kind == "label-free":
        return label_free()
    return session_on(tiny_model(num_labels={"regression": 1, "three classes": 3}[kind]), Bert(), Labelled())


@pytest.mark.parametrize("kind", ["label-free", "regression", "three classes", "squad"])
def test_every_task_is_pruned_to_a_mix_and_corrected(kind: str, tmp_path: Path) -> None:
    session = sessions(kind, tmp_path)
    pruned = obs(0.5).prune(session)
    assert 0.45 < pruned.metrics["macs_kept"] <= 0.5
    kept = [pruned.masks.keep[group.name] for group in session.groups]
    assert any(mask.any() and not mask.all() for mask in kept)
    assert any(not torch.equal(mask, mask.sort(descending=True).values) for mask in kept)
    plain = shrink(session.model, session.family, pruned.masks)
    assert divergence(session, smaller_of(session, pruned)) < 0.8 * divergence(session, plain)
    assert pruned.metrics["predicted_divergence"] > 0


def test_chosen_masks_lose_less_than_their_opposites() -> None:
    session = labelled(count=80)
    pruned = obs(0.5).prune(session)
    turned = {}
    for group in session.groups:
        keep = pruned.masks.keep[group.name]
        turned[group.name] = torch.zeros_like(keep)
        turned[group.name][(~keep).nonzero().flatten()[: int(keep.sum())]] = True
    chosen, opposite = (shrink(session.model, session.family, masks) for masks in (pruned.masks, Masks(turned)))
    assert divergence(session, chosen) < divergence(session, opposite)


def test_a_duplicated_neuron_is_removed_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_obs, "SHARE", 0.0)  # one neuron a step
    session = session_on(tiny_model().double(), Bert(), Labelled(), count=120)  # the last layer counts one token a row
    group = session.groups[1]
    make_twin(session.model, group, twin=7, of=20)
    pruned = obs(0.999, ridge=1e-6).prune(session)
    gone = {name: (~keep).nonzero().flatten().tolist() for name, keep in pruned.masks.keep.items() if not keep.all()}
    assert gone in ({group.name: [7]}, {group.name: [20]})
    assert_lossless_by_tuning(session, pruned)


def statistics_and_orders(method: Obs, session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    found: list[Any] = []
    original = _obs.removal_orders

    def spy(method: Obs, session: Session, statistics: Any) -> Any:
        found.extend([statistics, original(method, session, statistics)])
        return found[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_obs, "removal_orders", spy)
        method.prune(session)
    return found[0], found[1]


def test_the_loss_of_a_whole_sublayer_is_half_its_variance_in_the_metric_of_the_curvature() -> None:
    session = session_on(tiny_model().double(), Bert(), Labelled(), count=16)
    statistics, orders = statistics_and_orders(obs(ridge=1e-6), session)
    for group in session.groups:
        own = statistics[group.name]
        weight = session.model.get_parameter(f"{group.consumer.module}.weight")
        varies = weight @ own.covariance @ weight.T
        curvature = own.gradients.gram / 16
        expected = 0.5 * float((varies * curvature).sum())
        assert orders[group.name].losses[-1] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("number", [0, 1, 3, 5])
@pytest.mark.parametrize("kept", [0, 2, 4])
def test_updated_weights_and_bias_keep_the_mean_and_lower_the_error_on_the_dense_inputs(number: int, kept: int) -> None:
    session = session_on(tiny_model().double(), Bert(), Labelled(), count=16)
    statistics, orders = statistics_and_orders(obs(ridge=1e-6), session)
    group = session.groups[number]
    keep = orders[group.name].keep(kept)
    changed = updated(session.model, group, keep, orders[group.name], statistics[group.name])
    name = group.consumer.module
    weight, bias = (session.model.get_parameter(f"{name}.{part}") for part in ("weight", "bias"))
    read: list[Tensor] = []
    counts = token_weights(layer_names(session.groups), session.task.token_weights)
    with session.model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
        for batch in session.calibration.batches(session.device):
            raw_output(session.model, batch)
            counted = counts(batch, group) > 0
            read[-1] = read[-1][counted]
    x, stay = torch.cat(read), keep.repeat_interleave(group.width)
    wanted = x @ weight.T + bias
    found = x[:, stay] @ changed[f"{name}.weight"][:, stay].T + changed[f"{name}.bias"]
    plain = x[:, stay] @ weight[:, stay].T + bias
    torch.testing.assert_close(found.mean(dim=0), wanted.mean(dim=0))
    errors = [float((each - wanted).square().sum()) for each in (found, plain)]
    assert errors[0] < 0.9 * errors[1] or keep.all()
    assert torch.equal(changed[f"{name}.weight"][:, ~stay], weight[:, ~stay])


def test_heads_without_output_go_first() -> None:
    session = labelled()
    group = session.groups[2]
    with torch.no_grad():
        session.model.get_parameter(f"{group.consumer.module}.weight")[:, : group.width] = 0
    pruned = obs(0.96).prune(session)
    assert not pruned.masks.keep[group.name][0]


@pytest.mark.parametrize("number", [0, 3])
def test_a_sublayer_that_gives_a_constant_goes_as_a_whole_and_costs_nothing(number: int) -> None:
    session = session_on(tiny_model().double(), Bert(), Labelled())
    group = session.groups[number]
    with torch.no_grad():
        session.model.get_parameter(f"{group.consumer.module}.weight").zero_()
    pruned = obs(0.85 if group.kind == "heads" else 0.8).prune(session)
    assert not pruned.masks.keep[group.name].any()
    assert smaller_of(session, pruned).config.pruned_shapes


@TWO_LAYOUTS
def test_so_little_is_kept_that_whole_sublayers_go(model_type: str) -> None:
    session = labelled(model_type)
    (pruned,) = prune_all(session, [Target(macs=0.05)])
    counts = pruned.metrics["heads_kept"] + pruned.metrics["neurons_kept"]
    assert 0 in counts
    assert any(counts)
    batch = next(session.calibration.batches(session.device))
    with torch.no_grad():
        assert raw_output(smaller_of(session, pruned), batch).isfinite().all()
    biases = {f"{g.consumer.module}.bias" for g in session.groups if not pruned.masks.keep[g.name].any()}
    assert biases & set(pruned.weights)


@pytest.mark.parametrize(
    ("model_type", "keep"), [("bert", 0.05), ("bert", 0.7), ("distilbert", 0.05), ("distilbert", 0.4)]
)
def test_masked_equals_shrunk_equals_onnx(model_type: str, keep: float, tmp_path: Path) -> None:
    session = labelled(model_type)
    pruned = obs(keep).prune(session)
    corrected = labelled(model_type).model
    for name, weight in pruned.weights.items():
        corrected.get_parameter(name).copy_(weight)
    sizes = pruned.metrics["neurons_kept"]
    assert len(set(sizes)) > 1
    ragged = ((1,), (5, 9), (1, 17, 3), (64, 2))
    for lengths in ragged:
        batch = tiny_batch(lengths=lengths, labels=False)
        smaller = assert_masked_equals_shrunk(corrected, session.family, pruned.masks, batch)
        with torch.no_grad():
            assert torch.equal(raw_output(smaller, batch), raw_output(smaller_of(session, pruned), batch))
    path = tmp_path / "model.onnx"
    OnnxExporter().export(smaller, path, input_names=("input_ids", "attention_mask"), output_names=("logits",))
    for lengths in ragged:
        assert_onnx_equals_torch(path, smaller, tiny_batch(lengths=lengths, labels=False), tolerance=1e-5)


def padded(session: Session, extra: int) -> Session:
    rows = [
        {key: [*value, *[0] * extra] if isinstance(value, list) else value for key, value in row.items()}
        for row in session.calibration.rows
    ]
    return replace(session, calibration=replace(session.calibration, rows=rows))


def turned(session: Session) -> Session:
    """Let whole blocks of eight rows change places: which rows are held out stays the same."""
    rows = list(session.calibration.rows)
    blocks = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    return replace(session, calibration=replace(session.calibration, rows=list(itertools.chain(*blocks[::-1]))))


def test_results_depend_neither_on_the_batch_size_nor_on_padding_nor_on_order() -> None:
    def session(**options: Any) -> Session:
        return session_on(tiny_model().double(), Bert(), Labelled(), **options)

    method = Obs(target=Target(macs=0.5, sequence=10))
    first = method.prune(session())
    for other in (session(batch_size=5), padded(session(), 7), turned(session())):
        found = method.prune(other)
        assert found.masks == first.masks
        for name, weight in first.weights.items():
            torch.testing.assert_close(found.weights[name], weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("emptied", [(0,), (0, 1), (2,), (3,)])
@TWO_LAYOUTS
def test_a_model_that_lost_sublayers_is_pruned_further(model_type: str, emptied: tuple[int, ...]) -> None:
    dense = labelled(model_type, count=16)
    gone = {g.name: torch.full((g.units,), number not in emptied) for number, g in enumerate(dense.groups)}
    smaller = shrink(dense.model, dense.family, Masks(gone)).requires_grad_(False)
    session = replace(dense, model=smaller)
    pruned = obs(0.3).prune(session)
    assert 0.25 < pruned.metrics["macs_kept"] <= 0.3  # of the dense model
    assert divergence(session, smaller_of(session, pruned)) < divergence(
        session, shrink(smaller, session.family, pruned.masks)
    )


@TWO_LAYOUTS
def test_pruning_twice_stays_within_the_last_target(model_type: str) -> None:
    session = labelled(model_type)
    first = smaller_of(session, obs(0.6).prune(session)).requires_grad_(False)
    again = replace(session, model=first)
    pruned = obs(0.3).prune(again)
    assert 0.25 < pruned.metrics["macs_kept"] <= 0.3


def test_the_model_stays_as_it_is() -> None:
    session = labelled()
    before = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    obs(0.3).prune(session)
    assert all(torch.equal(tensor, before[name]) for name, tensor in session.model.state_dict().items())


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    obs(0.5).prune(labelled())
    assert list(tmp_path.iterdir()) == []


def test_undoing_drift_is_optional_and_reported() -> None:
    with_it, without = (obs(0.3, undo_drift=undo).prune(labelled()) for undo in (True, False))
    assert with_it.masks == without.masks
    assert with_it.metrics["drift"]
    assert without.metrics["drift"] == []
    producers = {f"{piece.module}.weight" for group in labelled().groups for piece in group.producers}
    assert producers & set(with_it.weights)
    assert not producers & set(without.weights)


def test_metrics_name_the_phases_and_every_sublayer() -> None:
    metrics = obs().prune(labelled()).metrics
    assert set(metrics["seconds"]) == {"budget", "statistics", "removal", "correction"}
    assert [fit["group"] for fit in metrics["tuning"]] == [group.name for group in labelled().groups]


@pytest.mark.parametrize("option", [{"temperature": 0}, {"ridge": 0}, {"projections": 0}, {"unknown": 1}])
def test_options_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(option))):
        obs(**option)
