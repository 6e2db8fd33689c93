"""CAP's cuts: which units go, what is trained in between, what a killed pruning goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from compressor.errors import InputError
from compressor.model import Masks, fingerprint, raw_output, save, shrink
from compressor.model.costs import parameter_prices, priced, unit_prices
from compressor.plugin import Pruned, Registry, Target
from compressor.run.session import Session
from compressor.testing import tiny_model
from compressor.train import CHECKPOINTS, TrainingRun
from compressor_plugins.losses.contrastive import Contrastive
from compressor_plugins.losses.distillation import Distillation
from compressor_plugins.losses.hidden import Hidden
from compressor_plugins.losses.task import TaskLoss
from compressor_plugins.methods import _cap_structured
from compressor_plugins.methods._cap_cuts import lowest
from compressor_plugins.methods._cap_importance import importance, normalized
from compressor_plugins.methods.cap import Cap
from compressor_plugins.methods.fisher import Fisher
from tests.plugins.sessions import FAMILIES, label_free, labelled
from tests.run.conftest import run_recipe
from tests.toys import squad_recipe, toy_recipe

CONTRAST = Contrastive(modules=("SnC", "FiC"), extra_examples=16)
TRAIN: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2}


def cap(**given: Any) -> Cap:
    train = {**TRAIN, "losses": (TaskLoss(weight=0.1), Distillation(weight=0.9), CONTRAST), **given.pop("train", {})}
    amount = {} if {"target", "percentages"} & given.keys() else {"percentages": (30, 60)}
    return Cap(**{**amount, **given, "train": train})


def pruned_model(session: Session, pruned: Pruned) -> torch.nn.Module:
    return shrink(session.model, session.family, pruned.masks, pruned.weights)


def units(pruned: Pruned, session: Session, kind: str) -> list[int]:
    return [int(pruned.masks.keep[group.name].sum()) for group in session.groups if group.kind == kind]


# Which units go.


def groups(counts: list[int]) -> Any:
    return [SimpleNamespace(name=str(number), units=count) for number, count in enumerate(counts)]


def test_of_144_heads_ninety_percent_are_129():
    draw = np.random.default_rng(0)
    every = groups([12] * 12)
    scores = {group.name: torch.from_numpy(draw.random(12)) for group in every}
    keep = lowest(every, scores, int(144 * 90 / 100), spared=1)
    assert sum(int((~mask).sum()) for mask in keep.values()) == 129
    assert min(int(mask.sum()) for mask in keep.values()) >= 1


def test_the_lowest_go_and_of_equal_ones_the_last():
    keep = lowest(groups([3, 2]), {"0": torch.tensor([2.0, 1.0, 1.0]), "1": torch.tensor([1.0, 5.0])}, 2)
    assert [mask.tolist() for mask in keep.values()] == [[True, True, False], [False, True]]


def test_every_group_keeps_its_best_units():
    keep = lowest(groups([3, 2]), {"0": torch.tensor([9.0, 8.0, 7.0]), "1": torch.tensor([0.0, 0.1])}, 3, spared=1)
    assert [mask.tolist() for mask in keep.values()] == [[True, False, False], [False, True]]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_cut_removes_the_published_counts(model_type: str, tmp_path: Path):
    session = labelled(model_type, run_dir=tmp_path)
    pruned = cap(percentages=(30, 60)).prune(session)
    assert [one["heads"] for one in pruned.metrics["trainings"]] == [12 - int(3.6), 12 - int(7.2)]
    assert [one["neurons"] for one in pruned.metrics["trainings"]] == [144 - int(43.2), 144 - int(86.4)]
    assert sum(units(pruned, session, "heads")) == 5
    assert min(units(pruned, session, "heads")) >= 1
    assert [g.units for g in session.family.groups(pruned_model(session, pruned))] == [
        int(pruned.masks.keep[group.name].sum()) for group in session.groups
    ]


def test_percentages_that_leave_too_few_heads_are_refused_before_anything_runs(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    for refuse in (lambda method: method.check(session.model), lambda method: method.prune(session)):
        with pytest.raises(InputError, match="90 % of 12 heads leaves 2; min_heads 1 keeps 3, in 3 layers"):
            refuse(cap(percentages=(50, 90)))
    cap(percentages=(50, 90), min_heads=0).check(session.model)


@pytest.mark.parametrize("amount", ["macs", "params"])
def test_a_target_is_met_in_equal_steps(amount: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def cost(model: torch.nn.Module) -> float:
        prices = (
            unit_prices(model, family.groups(model), 8)
            if amount == "macs"
            else parameter_prices(model, family.groups(model))
        )
        return priced(prices, [(group.kind, group.units) for group in family.groups(model)])

    session, kept = labelled(run_dir=tmp_path), []
    family, following = session.family, _cap_structured._next

    def watch(*given: Any) -> Any:
        cut = following(*given)
        kept.append(cost(cut.model) / cost(session.model))
        return cut

    monkeypatch.setattr(_cap_structured, "_next", watch)
    cap(target=Target(**{amount: 0.4, "sequence": 8}), cuts=2, train={"epochs": 0.2}).prune(session)
    assert kept[0] == pytest.approx(0.7, abs=0.03)
    assert kept[1] == pytest.approx(0.4, abs=0.03)
    assert kept[0] <= 0.7
    assert kept[1] <= 0.4


def test_a_target_that_the_spared_heads_alone_exceed_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"min_heads 4: 12 heads alone cost more than target\.macs 0\.1"):
        cap(target=Target(macs=0.1), min_heads=4).prune(labelled(run_dir=tmp_path))


# Importance.


def measured(session: Session, *losses: Any, per_sample: bool = False, samples: int | None = None) -> dict[str, Any]:
    run = TrainingRun(session, cap(train={"losses": losses or (TaskLoss(),)}).train)
    return importance(run, session.groups, per_sample=per_sample, samples=samples)


def test_importance_is_the_absolute_gradient_of_the_batch_loss_for_a_gate(tmp_path: Path):
    from compressor.model import collate, masked

    session = labelled(run_dir=tmp_path, count=8)
    run = TrainingRun(session, cap(train={"losses": (TaskLoss(),)}).train)
    found = importance(run, session.groups, per_sample=False, samples=None)
    batch = collate([run.rows[place] for place in range(8)], session.tokenizer)
    for group in session.groups:
        gate = torch.ones(group.units, requires_grad=True)
        with masked(run.student, session.groups, {group.name: gate}):
            run.objective(**batch)["loss"].backward()
        assert gate.grad is not None
        assert torch.allclose(found[group.name], gate.grad.abs().double(), atol=1e-6), group.name


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_head_that_gives_nothing_has_no_importance(model_type: str, tmp_path: Path):
    session = labelled(model_type, run_dir=tmp_path)
    group = next(group for group in session.groups if group.kind == "heads")
    value = session.model.get_submodule(group.producers[2].module)
    with torch.no_grad():
        value.weight[:8] = 0.0  # type: ignore[index, operator]
        value.bias[:8] = 0.0  # type: ignore[index, operator]
    found = measured(session)[group.name]
    assert float(found[0]) == 0.0
    assert (found[1:] > 0).all()


def test_a_larger_loss_scales_importance_and_leaves_the_normalised_one(tmp_path: Path):
    one, three = (measured(labelled(run_dir=tmp_path), TaskLoss(weight=weight)) for weight in (1.0, 3.0))
    for name, values in one.items():
        assert torch.allclose(three[name], 3 * values, rtol=1e-4)
        assert torch.allclose(normalized(three)[name], normalized(one)[name], rtol=1e-4)
        assert float(normalized(one)[name].norm()) == pytest.approx(1.0)


def test_what_the_loss_does_not_read_has_no_importance(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    session.model = tiny_model(seed=1).requires_grad_(False)
    found = measured(session, Hidden(layers={1: 1}))
    assert [bool(found[group.name].any()) for group in session.groups] == [True, True, False, False, False, False]


def test_rows_alone_never_cancel_out(tmp_path: Path):
    batches, rows = (measured(labelled(run_dir=tmp_path), per_sample=flag) for flag in (False, True))
    assert all((rows[name] >= values - 1e-9).all() for name, values in batches.items())
    assert any((rows[name] > 1.1 * values).any() for name, values in batches.items())


def test_importance_on_fewer_rows_is_another(tmp_path: Path):
    every, some = (measured(labelled(run_dir=tmp_path), samples=samples) for samples in (None, 8))
    assert any(not torch.equal(every[name], some[name]) for name in every)


def test_measuring_leaves_the_model_and_its_flags_alone(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    run = TrainingRun(session, cap().train)
    before = fingerprint(run.student)
    importance(run, session.groups, per_sample=True, samples=None)
    assert fingerprint(run.student) == before
    assert all(parameter.requires_grad for parameter in run.student.parameters())
    assert not run.objective.history


# The whole method.


def test_snapshots_are_taken_before_every_cut_but_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    snapshot = TrainingRun.snapshot

    def watch(run: TrainingRun) -> None:
        seen.append(sum(parameter.numel() for parameter in run.student.parameters()))
        snapshot(run)

    monkeypatch.setattr(TrainingRun, "snapshot", watch)
    session = labelled(run_dir=tmp_path)
    cap(percentages=(20, 40, 60), train={"epochs": 2}).prune(session)
    dense = sum(parameter.numel() for parameter in session.model.parameters())
    assert len(seen) == 2
    assert dense > seen[0] > seen[1]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path):
    one, other = (cap().prune(labelled(run_dir=tmp_path / name)) for name in ("one", "other"))
    assert one.masks == other.masks
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def test_the_session_stays_as_it_is(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    before = fingerprint(session.model)
    pruned = cap().prune(session)
    assert fingerprint(session.model) == before != fingerprint(pruned_model(session, pruned))


def test_what_an_earlier_step_zeroed_stays_zero(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    session.weight_masks = Masks({name: torch.rand(48, 32, generator=torch.Generator().manual_seed(0)) < 0.5})
    pruned = cap().prune(session)
    kept = pruned.masks.keep[session.groups[1].name]
    trained = pruned.weights[name][kept]
    assert not trained[~session.weight_masks.keep[name][kept]].any()
    assert trained.any()


def whole(session: Session) -> None:
    """Leave the model as it is."""


def pruned_before(session: Session) -> None:
    keep = {group.name: torch.arange(group.units) >= group.units // 4 for group in session.groups}
    keep[session.groups[5].name][:] = False  # an emptied sublayer
    session.model = shrink(session.model, session.family, Masks(keep))


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("before", [whole, pruned_before], ids=lambda before: before.__name__)
def test_what_is_handed_back_is_the_model_that_was_trained(
    model_type: str, before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session = labelled(model_type, run_dir=tmp_path)
    before(session)
    last: list[Any] = []
    following = _cap_structured._next
    monkeypatch.setattr(_cap_structured, "_next", lambda *given: last.append(following(*given)) or last[-1])
    pruned = cap(percentages=(40, 80), min_heads=0, train={"learning_rate": 1e-2}).prune(session)
    made = pruned_model(session, pruned)
    batch = next(session.calibration.batches(session.device))
    with torch.no_grad():
        expected, found, start = (raw_output(model, batch) for model in (last[-1].model, made, session.model))
    assert torch.equal(found, expected)
    assert float((found - start).abs().max()) > 1e-2
    assert made.state_dict().keys() == last[-1].model.state_dict().keys()


def test_heads_of_a_pruned_model_are_counted_as_they_are(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    pruned_before(session)
    pruned = cap(percentages=(40,)).prune(session)
    assert sum(units(pruned, session, "heads")) == 9 - int(3.6)


def test_without_labels_distillation_and_contrast_are_left(tmp_path: Path):
    task = SimpleNamespace(name="embedding", head="feature-extraction", num_labels=None, label_free=True)
    method = Cap.model_validate({"percentages": [50]}, context={"registry": Registry.load(), "task": task})
    assert [loss.name for loss in method.train.losses] == ["distillation", "contrastive"]
    session = label_free(run_dir=tmp_path)
    losses = (Distillation(), Contrastive(modules=("SnC", "FiC"), vector="mean"))
    pruned = cap(train={"losses": losses}).prune(session)
    assert sum(units(pruned, session, "heads")) == 5


STOPS = {"in a bank": ("bank", 2), "in the first training": ("train", 3), "in the second training": ("train", 8)}


@pytest.mark.parametrize("where", STOPS)
def test_a_stopped_pruning_goes_on_to_the_same_bits(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind, number = STOPS[where]
    expected = cap().prune(labelled(run_dir=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        if kind == "bank":
            stop_in_bank(patch, number)
        else:
            stop_in_training(patch, number)
        with pytest.raises(KeyboardInterrupt):
            cap().prune(labelled(run_dir=tmp_path / "stopped"))
    cuts: list[int] = []
    following = _cap_structured._next
    monkeypatch.setattr(_cap_structured, "_next", lambda *given: cuts.append(given[2].done) or following(*given))
    found = cap().prune(labelled(run_dir=tmp_path / "stopped"))
    assert cuts == ([1] if number in {2, 8} else [0, 1])
    assert found.masks == expected.masks
    assert all(torch.equal(value, expected.weights[name]) for name, value in found.weights.items())


def stop_in_bank(patch: pytest.MonkeyPatch, bank: int) -> None:
    """Stop while the second bank, which is the first snapshot, is half written."""
    from compressor_plugins.losses._banks import Encoding

    made: list[Any] = []
    encoded = Encoding._encoded

    def interrupted(self: Any, encoder: Any) -> Any:
        made.append(encoder)
        for part in encoded(self, encoder):
            yield part
            if len(made) == bank:
                raise KeyboardInterrupt

    patch.setattr(Encoding, "_encoded", interrupted)


def stop_in_training(patch: pytest.MonkeyPatch, steps: int) -> None:
    from compressor.train.enforce import Enforcing

    done: list[int] = []

    def count(*_: Any, **__: Any) -> None:
        done.append(1)
        if len(done) == steps:
            raise KeyboardInterrupt

    patch.setattr(Enforcing, "on_optimizer_step", count)


def test_only_the_newest_cut_rests_on_disk(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    cap(percentages=(20, 40, 60)).prune(session)
    assert [path.name for path in (session.stage / CHECKPOINTS / "cuts").iterdir()] == ["03"]


def test_cuts_of_other_options_do_not_count(tmp_path: Path):
    cap(percentages=(20, 60)).prune(labelled(run_dir=tmp_path))
    found = cap(percentages=(30, 60)).prune(labelled(run_dir=tmp_path))
    expected = cap(percentages=(30, 60)).prune(labelled(run_dir=tmp_path / "anew"))
    assert found.masks == expected.masks
    assert len(found.metrics["trainings"]) == 2


def test_it_begins_with_the_pre_trained_model_where_that_is_asked_for(tmp_path: Path):
    save(tiny_model(num_labels=None, seed=5), tmp_path / "source")
    session = labelled(run_dir=tmp_path)
    session.source = tmp_path / "source"
    from compressor_plugins.methods._cap import starting_model

    begun = starting_model(cap(start="pre-trained"), session)
    assert fingerprint(begun.base_model) == fingerprint(tiny_model(num_labels=None, seed=5))  # type: ignore[arg-type]
    assert fingerprint(begun) == fingerprint(starting_model(cap(start="pre-trained"), session))
    assert starting_model(cap(), session) is session.model
    session.model = shrink(session.model, session.family, Masks({session.groups[0].name: torch.arange(4) > 0}))
    with pytest.raises(InputError, match="start: an earlier step removed parts of the model"):
        starting_model(cap(start="pre-trained"), session)


def test_a_fine_tuned_start_is_no_pre_trained_one(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    save(session.teacher, tmp_path / "source")
    session.source = tmp_path / "source"
    with pytest.raises(InputError, match="that is the fine-tuned model itself"):
        cap(start="pre-trained").prune(session)


# Through the pipeline.

PRUNE = {
    "method": "cap",
    "percentages": [40, 70],
    "train": {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "losses": [{"name": "task"}, {"name": "distillation"}, {"name": "contrastive", "modules": ["SnC", "FiC"]}],
    },
}


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "roberta"])
def test_masked_removed_and_exported_models_agree(model_type: str, tmp_path: Path):
    steps = [{"prune": {**PRUNE, "min_heads": 0}}, {"export": {}}, {"verify": {"sequence": 16, "rounds": 3}}]
    report = run_recipe(toy_recipe(tmp_path, model_type=model_type, steps=steps), tmp_path / "out").report
    found = report["steps"][0]["metrics"]
    assert found["removal_max_abs_diff"] < 1e-5  # masked against removed, on a calibration batch
    assert report["steps"][1]["metrics"]["artifacts"]["model"]["max_abs_diff"] < 1e-4  # torch against onnxruntime
    assert sum(found["heads_kept"]) == 12 - int(12 * 0.7)
    assert report["model"]["parameters"]["compressed"] < report["model"]["parameters"]["dense"]
    assert all(0 <= one["quality"]["after"]["accuracy"] <= 1 for one in found["trainings"])


def test_answers_are_pruned_with_contrast_too(tmp_path: Path):
    steps = [{"prune": PRUNE}, {"export": {}}, {"verify": {"sequence": 16, "rounds": 3}}]
    report = run_recipe(squad_recipe(tmp_path, steps=steps), tmp_path / "out").report
    assert report["steps"][0]["metrics"]["trainings"][1]["losses"]["contrastive"]["last"] > 0
    assert report["quality"]["metric"] == "f1"


def test_a_dense_training_before_makes_the_teacher_and_prc_the_start(tmp_path: Path):
    losses = [{"name": "task"}, {"name": "contrastive"}]
    prune = {**PRUNE, "start": "pre-trained", "train": {**PRUNE["train"], "losses": losses}}  # type: ignore[dict-item]
    train = {"train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}}
    report = run_recipe(toy_recipe(tmp_path, steps=[train, {"prune": prune}]), tmp_path / "out").report
    assert report["steps"][1]["metrics"]["trainings"][1]["losses"]["contrastive"]["last"] > 0


def test_a_fine_tuned_start_without_its_encoder_is_said(tmp_path: Path):
    prune = {**PRUNE, "train": {**PRUNE["train"], "losses": ["task", "contrastive"]}}  # type: ignore[dict-item]
    with pytest.raises(InputError, match="the run started from the fine-tuned one"):
        run_recipe(toy_recipe(tmp_path, steps=[{"prune": prune}]), tmp_path / "out")


# Options.


def test_caps_losses_are_there_where_nothing_is_said():
    names = [(loss.name, loss.weight) for loss in Cap(percentages=(50,)).train.losses]
    assert names == [("task", 0.1), ("distillation", 0.9), ("contrastive", 1.0)]
    given = {"backend": "movement", "target": {"sparsity": 0.9}, "train": {"epochs": 10}}
    soft = Cap.model_validate(given)
    assert (soft.train.losses[1].temperature, soft.train.epochs) == (2.0, 10)  # type: ignore[attr-defined]


def test_spelt_out_options_validate_back():
    for method in (
        cap(),
        cap(target=Target(macs=0.5)),
        Cap(backend="movement", target=Target(sparsity=0.9), pruning_scope="global", refresh=5),
    ):
        context = {"registry": Registry.load()}
        assert Cap.model_validate(json.loads(json.dumps(method.options())), context=context) == method


def test_a_sweep_over_targets_is_a_run_each(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    method = cap(target=Target(macs=0.5, sequence=8), cuts=1)
    both = list(method.prune_all(session, [Target(macs=0.5, sequence=8), Target(macs=0.3, sequence=8)]))
    alone = cap(target=Target(macs=0.3, sequence=8), cuts=1).prune(labelled(run_dir=tmp_path / "alone"))
    assert both[1].masks == alone.masks
    assert all(torch.equal(value, both[1].weights[name]) for name, value in alone.weights.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected a target or percentages; got neither"),
        ({"percentages": [50], "target": {"macs": 0.5}}, "got both"),
        ({"percentages": [60, 30]}, "expected percentages that rise"),
        ({"percentages": []}, "expected percentages that rise"),
        ({"percentages": [100]}, "less than 100"),
        ({"target": {"latency": 0.5}}, "takes target.macs or target.params; got target.latency"),
        ({"target": {"macs": 0.5}, "final_lambda": 3}, "final_lambda: not an option of back end first-order"),
        ({"percentages": [50], "cuts": 3}, "cuts is of a target"),
        ({"backend": "movement", "target": {"sparsity": 0.5}, "refresh": 3}, "refresh is of pruning_scope global"),
        ({"backend": "movement"}, "needs target.sparsity"),
        ({"backend": "movement", "target": {"macs": 0.5}}, "takes target.sparsity; got target.macs"),
        ({"backend": "movement", "target": {"sparsity": 0.5}, "cuts": 3}, "cuts: not an option of back end movement"),
        (
            {"backend": "magnitude", "target": {"sparsity": 0.5}, "score_learning_rate": 1},
            "score_learning_rate: not an",
        ),
        ({"backend": "soft-movement"}, "expected final_lambda"),
        ({"backend": "soft-movement", "final_lambda": 5, "target": {"sparsity": 0.5}}, "no target, but final_lambda"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Cap.model_validate(given)


def test_only_back_ends_for_weights_leave_zeros():
    assert not cap().zeroes
    assert Cap(backend="soft-movement", final_lambda=1.0).zeroes
    assert not Fisher(target=Target(macs=0.5)).zeroes
