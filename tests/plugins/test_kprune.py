from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model import Masks, PrunableGroup, masked, shrink
from compressor.model.costs import encoder_macs, parameters
from compressor.model.outputs import raw_output
from compressor.plugin import Target
from compressor.prune import Sweep, unpruned
from compressor.run.session import Session
from compressor.testing import named_plan, session_on, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.methods._knowledge import SAMPLE_SCALE, Measurement, coordinates
from compressor_plugins.methods.kprune import KPrune
from tests.plugins.sessions import (
    FAMILIES,
    Labelled,
    assert_lossless_by_tuning,
    label_free,
    labelled,
    make_twin,
)

PUBLISHED = {"measure": "batch-gradient", "refresh": 1}
ONCE = {"measure": "curvature", "refresh": 0}


def kprune(macs: float = 0.5, **options: Any) -> KPrune:
    return KPrune(target=Target(macs=macs), **options)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("macs", [0.08, 0.35, 0.6, 0.95])
@pytest.mark.parametrize("options", [PUBLISHED, ONCE], ids=["published", "once"])
def test_kprune_never_exceeds_its_target(model_type: str, macs: float, options: dict[str, Any]) -> None:
    session = labelled(model_type)
    pruned = kprune(macs, **options).prune(session)
    smaller = shrink(session.model, session.family, pruned.masks, pruned.weights)
    length = session.calibration.mean_length
    left = encoder_macs(smaller, session.family.groups(smaller), length)
    assert left / encoder_macs(session.model, session.groups, length) == pytest.approx(pruned.metrics["macs_kept"])
    assert macs - 0.03 < pruned.metrics["macs_kept"] <= macs


def test_a_target_of_parameters_is_met_too() -> None:
    session = labelled()
    pruned = KPrune(target=Target(params=0.4)).prune(session)
    smaller = shrink(session.model, session.family, pruned.masks)
    emptied = shrink(session.model, session.family, Masks({n: ~m for n, m in unpruned(session.groups).keep.items()}))
    fixed = parameters(emptied)
    assert 0.38 < (parameters(smaller) - fixed) / (parameters(session.model) - fixed) <= 0.4


def student_of(session: Session) -> nn.Module:
    """Return a damaged copy, whose outputs are not the dense model's: a neuron and a head are gone below."""
    groups = session.groups
    masks = unpruned(groups).keep
    masks[groups[0].name][1] = False
    masks[groups[1].name][:7] = False
    return shrink(session.model, session.family, Masks(masks))


def measured(
    session: Session, method: KPrune, student: nn.Module, groups: Sequence[PrunableGroup]
) -> dict[str, Tensor]:
    """Return the knowledge of some of the student's groups, measured from the embeddings."""
    measurement = Measurement(method, session.task, model=student, groups=groups, generator=np.random.default_rng(0))
    for batch in session.calibration.batches(session.device):
        with torch.no_grad():
            dense = raw_output(session.model, batch)
        measurement.run(batch, dense, lambda _, real=batch["attention_mask"]: real)
    return measurement.scores()


def published_knowledge(session: Session, student: nn.Module, groups: Sequence[PrunableGroup]) -> dict[str, Tensor]:
    """Compute equations 5 and 6 of the paper with gates that are in the graph, one per column."""
    columns = [coordinates(group) for group in groups]
    predictive = {group.name: torch.zeros(group.units) for group in columns}
    rows = 0
    for batch in session.calibration.batches(session.device):
        gates = {group.name: torch.ones(group.units, requires_grad=True) for group in columns}
        with torch.no_grad():
            teacher = raw_output(session.model, batch) / 2
        with masked(student, columns, gates):
            output = raw_output(student, batch) / 2
        loss = 4 * nn.functional.kl_div(output.log_softmax(1), teacher.softmax(1), reduction="batchmean")
        for name, gradient in zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True):
            predictive[name] += gradient.square()
        rows += len(batch["input_ids"])
    return {name: value / (2 * rows) for name, value in predictive.items()}


def test_published_predictive_knowledge_equals_gates_in_the_graph() -> None:
    session = labelled()
    student = student_of(session)
    groups = session.family.groups(student)[2:]
    found = measured(session, kprune(**PUBLISHED, lam_rep=0), student, groups)
    for group, (name, expected) in zip(groups, published_knowledge(session, student, groups).items(), strict=True):
        per_head = expected.reshape(group.units, group.width).mean(dim=1) * group.width  # mu = head width
        torch.testing.assert_close(found[name].float(), per_head, rtol=1e-3, atol=1e-9)


def test_representational_knowledge_is_the_energy_of_a_units_own_output() -> None:
    session = labelled()
    groups = session.groups
    found = measured(session, kprune(**PUBLISHED, lam_pred=0, lam_rep=1), session.model, groups)
    neurons = groups[1]
    consumer: Any = session.model.get_submodule(neurons.consumer.module)
    read: list[Tensor] = []
    with consumer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])), torch.no_grad():
        masks = []
        for batch in session.calibration.batches(session.device):
            raw_output(session.model, batch)
            masks.append(batch["attention_mask"].bool())
    activations = torch.cat([values[mask] for values, mask in zip(read, masks, strict=True)])
    outputs = activations.unsqueeze(1) * consumer.weight  # (tokens, D, units): what every neuron alone gives
    torch.testing.assert_close(found[neurons.name].float(), outputs.square().mean(dim=(0, 1)), rtol=1e-4, atol=1e-8)


def test_gradients_see_nothing_at_the_dense_model_and_curvature_does() -> None:
    session = labelled()
    blind = measured(session, kprune(lam_rep=0, refresh=1, measure="gradient"), session.model, session.groups)
    seeing = measured(session, kprune(lam_rep=0, **ONCE), session.model, session.groups)
    assert max(float(score.max()) for score in blind.values()) < 1e-12
    assert all((score > 1e-9).all() for score in seeing.values())


def test_curvature_of_a_unit_is_what_removing_a_little_of_it_costs() -> None:
    session = session_on(tiny_model(num_hidden_layers=1).double(), Bert(), Labelled(), count=8)
    group = session.groups[0]
    found = measured(session, kprune(lam_rep=0, temperature=1.0, **ONCE), session.model, session.groups)
    batch = next(session.calibration.batches(session.device))
    step = 1e-2
    with torch.no_grad():
        dense = raw_output(session.model, batch)
        for unit in range(group.units):
            gate = torch.ones(group.units, dtype=torch.float64)
            gate[unit] -= step
            with masked(session.model, [group], {group.name: gate}):
                cost = session.task.divergences(raw_output(session.model, batch), dense).mean() / step**2
            assert float(found[group.name][unit]) * SAMPLE_SCALE == pytest.approx(float(cost), rel=2e-2)


def test_measuring_from_cached_inputs_equals_measuring_from_the_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    session, method = labelled(), kprune(0.5, **PUBLISHED)
    seen: list[tuple[nn.Module, Sequence[PrunableGroup], dict[str, Tensor]]] = []
    scores = Measurement.scores

    def spy(self: Measurement) -> dict[str, Tensor]:
        found = scores(self)
        seen.append((self.model, self.groups, found))
        return found

    monkeypatch.setattr(Measurement, "scores", spy)
    method.prune(session)
    monkeypatch.undo()
    assert len(seen) == 6
    top = session.groups[-1].layer
    for student, groups, found in seen[1:]:
        again = measured(session, method, student, groups)
        for group in groups:
            if group.layer != top:  # its energies weigh the first token only
                torch.testing.assert_close(found[group.name], again[group.name], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("options", "passes"), [(PUBLISHED, 6), (ONCE, 1), ({**ONCE, "refresh": 2}, 3)])
def test_knowledge_is_measured_as_often_as_asked(
    options: dict[str, Any], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    run = Measurement.run
    monkeypatch.setattr(Measurement, "run", lambda self, *args: (runs.append(len(self.groups)), run(self, *args))[1])
    session = labelled()
    kprune(0.5, **options).prune(session)
    assert len(runs) == passes * len(session.calibration)
    assert len(set(runs)) == passes


def padded(session: Session, extra: int) -> Session:
    rows = [
        {key: [*value, *[0] * extra] if isinstance(value, list) else value for key, value in row.items()}
        for row in session.calibration.rows
    ]
    return replace(session, calibration=replace(session.calibration, rows=rows))


@pytest.mark.parametrize("options", [{"measure": "gradient", "refresh": 1}, ONCE], ids=["gradient", "curvature"])
def test_masks_depend_neither_on_the_batch_size_nor_on_padding_nor_on_order(options: dict[str, Any]) -> None:
    method = KPrune(target=Target(macs=0.5, sequence=10), **options)
    session = labelled()
    first = method.prune(session).masks
    assert method.prune(labelled(batch_size=5)).masks == first
    assert method.prune(padded(session, 7)).masks == first
    whole = list(session.calibration.rows)
    blocks = [whole[start : start + 8] for start in range(0, 40, 8)]
    # Whole blocks of eight change places: which rows are held out from the fits stays the same.
    turned = [row for block in reversed(blocks) for row in block]
    again = replace(session, calibration=replace(session.calibration, rows=turned))
    assert method.prune(again).masks == first


@pytest.mark.parametrize("options", [PUBLISHED, ONCE])
def test_the_same_seed_gives_the_same_masks_and_weights(options: dict[str, Any]) -> None:
    first, second = (kprune(0.4, **options).prune(labelled()) for _ in range(2))
    assert first.masks == second.masks
    assert first.weights.keys() == second.weights.keys()
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


def test_mu_is_the_head_width_unless_given() -> None:
    session = labelled()
    width = session.groups[0].width
    assert width == 8
    assert kprune(0.4).prune(session).masks == kprune(0.4, mu=width).prune(session).masks
    assert kprune(0.4, mu=1e-9).prune(session).metrics["heads_kept"] == [0, 0, 0]


def test_what_was_pruned_is_refitted_toward_the_dense_model() -> None:
    session = labelled(count=80)
    errors = {}
    for tuning in ("none", "weights"):
        pruned = kprune(0.5, tuning=tuning).prune(session)
        smaller = shrink(session.model, session.family, pruned.masks, pruned.weights)
        errors[tuning] = 0.0
        for batch in session.calibration.batches(session.device):
            with torch.no_grad():
                dense, found = raw_output(session.model, batch), raw_output(smaller, batch)
            errors[tuning] += float(session.task.divergences(found, dense).sum())
    assert errors["weights"] < 0.7 * errors["none"]


def test_a_duplicated_neuron_is_removed_without_loss() -> None:
    session = session_on(tiny_model().double(), Bert(), Labelled())
    method = kprune(0.999, **ONCE)
    scores = measured(session, method, session.model, session.groups)
    neurons = [group for group in session.groups if group.kind == "ffn_neurons"]
    group = min(neurons, key=lambda g: float(scores[g.name].min()))
    weakest, other = int(scores[group.name].argmin()), int(scores[group.name].argmax())
    make_twin(session.model, group, twin=weakest, of=other)
    pruned = method.prune(session)
    assert not pruned.masks.keep[group.name][weakest]
    gone = {name: int((~keep).sum()) for name, keep in pruned.masks.keep.items() if not keep.all()}
    assert gone == {group.name: 1}
    assert_lossless_by_tuning(session, pruned)


def test_regression_and_label_free_tasks_are_pruned_too() -> None:
    regression = session_on(tiny_model(num_labels=1), Bert(), Labelled())
    for session in (regression, label_free()):
        for options in (PUBLISHED, ONCE):
            pruned = kprune(0.5, **options).prune(session)
            assert 0.45 < pruned.metrics["macs_kept"] <= 0.5


def test_heads_without_output_go_first() -> None:
    session = labelled()
    group = session.groups[2]
    with torch.no_grad():
        session.model.get_parameter(f"{group.consumer.module}.weight")[:, : group.width] = 0
    for options in (PUBLISHED, ONCE):
        pruned = kprune(0.96, **options).prune(session)
        assert not pruned.masks.keep[group.name][0]


@pytest.mark.parametrize("emptied", [(0,), (1,), (0, 1), (2,)])
@pytest.mark.parametrize("options", [PUBLISHED, ONCE], ids=["published", "once"])
def test_emptied_layers_are_passed_through(
    emptied: tuple[int, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = labelled(count=16)
    gone = {g.name: torch.full((g.units,), g.index not in emptied) for g in dense.groups}
    smaller = shrink(dense.model, dense.family, Masks(gone))
    session = replace(dense, model=smaller)
    reached: dict[str, list[Tensor]] = {}
    advance = Sweep.advance_teacher

    def spy(self: Sweep, layer: str) -> None:
        reached[layer] = [batch.teacher for batch in self.batches]
        advance(self, layer)

    monkeypatch.setattr(Sweep, "advance_teacher", spy)
    pruned = kprune(0.2, **options).prune(session)
    assert pruned.metrics["macs_kept"] <= 0.2
    for index, batch in enumerate(session.calibration.batches(session.device)):
        with torch.no_grad():
            states = smaller(**{k: v for k, v in batch.items() if k != "labels"}, output_hidden_states=True)
        assert len(reached) == 3
        for layer, hidden in zip(reached, states.hidden_states, strict=False):
            torch.testing.assert_close(reached[layer][index], hidden)


def test_a_model_without_units_is_refused() -> None:
    session = labelled(count=8)
    empty = shrink(session.model, session.family, Masks({n: ~m for n, m in unpruned(session.groups).keep.items()}))
    with pytest.raises(InputError, match="nothing left to prune"):
        kprune(0.5).prune(replace(session, model=empty, teacher=empty, plan=named_plan("empty")))


def test_metrics_name_the_phases() -> None:
    metrics = kprune().prune(labelled()).metrics
    assert set(metrics["seconds"]) == {"knowledge", "tuning"}
    assert len(metrics["tuning"]) == 6


@pytest.mark.parametrize("target", [{"sparsity": 0.5}, {"heads": 0.5}, {"latency": 0.5}])
def test_targets_without_a_price_are_refused(target: dict[str, float]) -> None:
    with pytest.raises(
        ValidationError, match=f"kprune takes target.macs or target.params; got target.{next(iter(target))}"
    ):
        KPrune(target=target)


def test_gradients_measured_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs refresh: 1 or more"):
        kprune(measure="gradient", refresh=0)
