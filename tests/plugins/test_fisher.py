from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compressor.model import Masks, masked, shrink
from compressor.model.costs import encoder_macs, kept_macs
from compressor.model.outputs import raw_output
from compressor.plugin import Target
from compressor.run.session import Session
from compressor.testing import tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.methods import _fisher
from compressor_plugins.methods.fisher import Fisher
from tests.plugins.sessions import (
    FAMILIES,
    Labelled,
    assert_lossless_by_tuning,
    label_free,
    labelled,
    make_twin,
    session_on,
)


def fisher(macs: float = 0.5, **options: Any) -> Fisher:
    return Fisher(target=Target(macs=macs), **options)


def chosen(method: Fisher, session: Session, gradients: Any, length: float = 10.0) -> tuple[Masks, Masks]:
    return _fisher.choose_masks(method, session, gradients, _fisher.budget_of(method.target, session, length))


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("macs", [0.08, 0.35, 0.6, 0.95])
def test_fisher_never_exceeds_its_target(model_type: str, macs: float) -> None:
    session = labelled(model_type)
    pruned = fisher(macs).prune(session)
    smaller = shrink(session.model, session.family, pruned.masks, pruned.weights)
    length = session.calibration.mean_length
    left = encoder_macs(smaller, session.family.groups(smaller), length)
    assert left / encoder_macs(session.model, session.groups, length) == pytest.approx(pruned.metrics["macs_kept"])
    assert macs - 0.03 < pruned.metrics["macs_kept"] <= macs
    batch = next(session.calibration.batches(session.device))
    assert torch.isfinite(raw_output(smaller, batch)).all()


@pytest.mark.parametrize("sequence", [None, 128.0])
def test_macs_are_counted_at_the_targets_length_or_the_mean_calibration_length(sequence: float | None) -> None:
    session = labelled()
    pruned = Fisher(target=Target(macs=0.5, sequence=sequence)).prune(session)
    length = sequence or session.calibration.mean_length
    left = kept_macs(session.model, session.groups, pruned.masks.keep, length)
    assert pruned.metrics["sequence"] == length
    assert pruned.metrics["macs_kept"] == left / encoder_macs(session.model, session.groups, length)


def test_keeping_everything_changes_nothing() -> None:
    session = labelled()
    pruned = fisher(1.0).prune(session)
    assert all(mask.all() for mask in pruned.masks.keep.values())
    smaller = shrink(session.model, session.family, pruned.masks, pruned.weights)
    batch = next(session.calibration.batches(session.device))
    torch.testing.assert_close(raw_output(smaller, batch), raw_output(session.model, batch), rtol=1e-4, atol=1e-5)


def test_pruning_leaves_the_sessions_model_as_it_is() -> None:
    session = labelled()
    before = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    fisher().prune(session)
    assert all(torch.equal(tensor, before[name]) for name, tensor in session.model.state_dict().items())


@pytest.mark.parametrize("make", [labelled, label_free])
def test_the_same_seed_gives_the_same_masks_and_weights(make: Any) -> None:
    first, second = fisher().prune(make()), fisher().prune(make())
    assert first.masks == second.masks
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


@pytest.mark.parametrize("make", [labelled, label_free])
def test_masks_do_not_depend_on_the_batch_size(make: Any) -> None:
    whole, parts = fisher().prune(make()), fisher().prune(make(batch_size=3))
    assert whole.masks == parts.masks


def test_masks_do_not_depend_on_the_order_of_labelled_rows() -> None:
    session = labelled()
    turned = replace(session.calibration, rows=session.calibration.rows[::-1])
    method = fisher(tuning="none")
    assert method.prune(session).masks == method.prune(replace(session, calibration=turned)).masks


def test_label_free_gradients_are_not_zero_at_the_dense_model() -> None:
    gradients = _fisher.importance_gradients(fisher(), label_free())
    for name, gradient in gradients.items():
        assert gradient.shape[0] == 40 * fisher().projections, name
        assert (gradient.square().sum(dim=0) > 1e-8).all(), name


def test_label_free_importance_approaches_the_output_jacobian() -> None:
    session = label_free(count=4)
    groups = [group for group in session.groups if group.kind == "heads"]
    found = _fisher.importance_gradients(fisher(projections=500), session)
    batch = next(session.calibration.batches(session.device))
    gates = {group.name: torch.ones(group.units, requires_grad=True) for group in groups}

    def squared_norm(*values: Tensor) -> Tensor:
        with masked(session.model, groups, dict(zip(gates, values, strict=True))):
            return session.task.output(raw_output(session.model, batch), batch)

    jacobians = torch.autograd.functional.jacobian(squared_norm, tuple(gates.values()))
    for name, jacobian in zip(gates, jacobians, strict=True):
        expected = 2 * jacobian.square().sum(dim=(0, 1))  # the Hessian of the squared distance
        torch.testing.assert_close(found[name].square().sum(dim=0), expected, rtol=0.2, atol=1e-6)


def test_batch_mean_importance_is_the_published_one() -> None:
    session = labelled()
    gradients = _fisher.importance_gradients(fisher(importance="batch-mean"), session)
    squares = {group.name: torch.zeros(group.units) for group in session.groups}
    for batch in session.calibration.batches(session.device):
        gates = {group.name: torch.ones(group.units, requires_grad=True) for group in session.groups}
        with masked(session.model, session.groups, gates):
            loss = nn.functional.cross_entropy(raw_output(session.model, batch), batch["labels"])
        for name, gradient in zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True):
            squares[name] += gradient.square()
    assert_close({name: gradient.square().sum(dim=0) for name, gradient in gradients.items()}, squares)


def test_rearrangement_keeps_the_counts_and_does_not_raise_the_fisher_form() -> None:
    session = labelled()
    gradients = _fisher.importance_gradients(fisher(), session)
    plain, _ = chosen(fisher(rearrange=False), session, gradients)
    better, _ = chosen(fisher(), session, gradients)
    forms = [
        [float(gradients[n][:, ~keep].sum(dim=1).square().sum()) for n, keep in masks.keep.items()]
        for masks in (plain, better)
    ]
    assert [int(keep.sum()) for keep in plain.keep.values()] == [int(keep.sum()) for keep in better.keep.values()]
    assert all(after <= before * (1 + 1e-5) for before, after in zip(*forms, strict=True))
    assert sum(forms[1]) < sum(forms[0])


def test_heads_without_output_are_pruned_first() -> None:
    session = labelled()
    dead = {"encoder.layer.0.attention": 2, "encoder.layer.2.attention": 0}
    for group in session.groups:
        if group.name in dead:
            weight = session.model.get_parameter(f"{group.consumer.module}.weight")
            weight[:, dead[group.name] * group.width : (dead[group.name] + 1) * group.width] = 0
    gradients = _fisher.importance_gradients(fisher(), session)
    whole = encoder_macs(session.model, session.groups, 10.0)
    ones = {group.name: torch.ones(group.units, dtype=torch.bool) for group in session.groups}
    for name, unit in dead.items():
        ones[name][unit] = False
    budget = kept_macs(session.model, session.groups, ones, 10.0) / whole
    masks, _ = chosen(fisher(budget), session, gradients)
    assert masks == Masks(ones)


def test_a_floor_keeps_a_part_of_every_sublayer_and_stays_within_the_budget() -> None:
    session = labelled()
    for macs in (0.2, 0.3, 0.5):
        pruned = fisher(macs, floor=0.05).prune(session)
        assert min(pruned.metrics["heads_kept"]) >= 1
        assert min(pruned.metrics["neurons_kept"]) >= 3
        assert pruned.metrics["macs_kept"] <= macs
    assert 0 in fisher(0.2).prune(session).metrics["heads_kept"]


def test_a_layer_that_lost_everything_is_announced_and_a_floor_prevents_it(caplog: pytest.LogCaptureFixture) -> None:
    session = labelled()
    for group in session.groups[4:]:
        session.model.get_parameter(f"{group.consumer.module}.weight").zero_()
    fisher(0.6).prune(session)
    assert "leaves no head and no neuron in bert.encoder.layer.2; floor: 0.01" in caplog.text
    caplog.clear()
    fisher(0.6, floor=0.01).prune(session)
    assert not caplog.text


@pytest.mark.parametrize("scale", [1e-18, 1e12])
def test_a_floor_does_not_depend_on_the_size_of_the_scores(scale: float) -> None:
    session, method = labelled(), fisher(0.3, floor=0.05)
    gradients = _fisher.importance_gradients(method, session)
    scaled = {name: gradient.double() * scale for name, gradient in gradients.items()}
    assert chosen(method, session, scaled) == chosen(method, session, gradients)


def test_a_floor_above_the_budget_gives_way() -> None:
    pruned = fisher(0.05, floor=0.5).prune(labelled())
    assert pruned.metrics["macs_kept"] <= 0.05


def test_a_floor_without_room_is_announced_as_such(caplog: pytest.LogCaptureFixture) -> None:
    fisher(0.01, floor=0.5).prune(labelled())
    assert "the budget has no room for the floor" in caplog.text


def test_a_duplicated_neuron_is_removed_without_loss() -> None:
    session = session_on(tiny_model().double(), Bert(), Labelled())
    method = fisher(0.999)
    group = session.groups[3]
    squares = _fisher.importance_gradients(method, session)[group.name].square().sum(dim=0)
    make_twin(session.model, group, twin=int(squares.argmin()), of=int(squares.argmax()))
    pruned = method.prune(session)
    gone = {name: (~keep).nonzero().flatten().tolist() for name, keep in pruned.masks.keep.items() if not keep.all()}
    assert gone == {group.name: [int(squares.argmin())]}
    assert_lossless_by_tuning(session, pruned)


def test_the_teacher_keeps_the_square_root_of_the_target() -> None:
    session = labelled()
    gradients = _fisher.importance_gradients(fisher(), session)
    masks, milder = chosen(fisher(0.25, teacher="milder"), session, gradients)
    plain, _ = chosen(fisher(0.5, rearrange=False), session, gradients)
    assert milder == plain
    assert milder != masks


def test_a_second_pruning_still_counts_from_the_dense_model() -> None:
    session = labelled()
    first = fisher(0.6).prune(session)
    smaller = shrink(session.model, session.family, first.masks, first.weights)
    second = fisher(0.2).prune(replace(session, model=smaller))
    length = session.calibration.mean_length
    left = shrink(smaller, session.family, second.masks, second.weights)
    share = encoder_macs(left, session.family.groups(left), length) / encoder_macs(
        session.model, session.groups, length
    )
    assert second.metrics["macs_kept"] == pytest.approx(share)
    assert 0.15 < share <= 0.2


@pytest.mark.parametrize("tuning", ["scales", "weights"])
@pytest.mark.parametrize("teacher", ["milder", "dense"])
def test_tuned_weights_have_full_shape_and_lower_the_held_out_error(tuning: str, teacher: str) -> None:
    session = labelled()
    pruned = fisher(0.4, tuning=tuning, teacher=teacher).prune(session)
    assert pruned.weights
    for name, weight in pruned.weights.items():
        assert weight.shape == session.model.get_parameter(name).shape
        assert weight.dtype == torch.float32
    fits = pruned.metrics["tuning"]
    assert [fit["group"] for fit in fits] == [group.name for group in session.groups]
    assert all(fit["error_after"] <= fit["error_before"] for fit in fits)
    assert any(fit["accepted"] == tuning for fit in fits)


def test_published_settings_scale_kept_units_and_touch_no_bias() -> None:
    session = labelled()
    options = {"importance": "batch-mean", "tuning": "scales", "teacher": "milder"}
    pruned = fisher(0.6, **options).prune(session)
    scaled = 0
    for group in session.groups:
        assert pruned.masks.keep[group.name].any()
        assert f"{group.consumer.module}.bias" not in pruned.weights
        name = f"{group.consumer.module}.weight"
        if name in pruned.weights:
            ratio = (pruned.weights[name] / session.model.get_parameter(name)).reshape(-1, group.units, group.width)
            torch.testing.assert_close(ratio, ratio[:1, :, :1].expand_as(ratio), rtol=1e-3, atol=1e-3)
            assert (ratio[0, ~pruned.masks.keep[group.name]] == 1).all()
            scaled += 1
    assert scaled


def test_metrics_are_plain_data() -> None:
    session = labelled()
    metrics = fisher().prune(session).metrics
    assert len(metrics["heads_kept"]) == len(metrics["neurons_kept"]) == 3
    assert set(metrics["seconds"]) == {"budget", "importance", "search", "tuning"}

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return value is None or type(value) in (int, float, str, bool)

    assert plain(dict(metrics))


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"layers": 0.5}, {"heads": 0.5}])
def test_targets_without_a_price_are_refused(target: dict[str, float]) -> None:
    with pytest.raises(
        ValidationError, match=f"fisher takes target.macs, .params, .*; got target.{next(iter(target))}"
    ):
        Fisher(target=target)


def test_the_declaration_does_not_import_torch() -> None:
    code = "import sys; import compressor_plugins.methods.fisher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
