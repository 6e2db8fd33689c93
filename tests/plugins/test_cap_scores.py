"""CAP's back ends for single weights: masks, schedules, straight-through gradients, one training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.model import Masks, apply_masks, fingerprint, raw_output
from compressor.plugin import Pruned, Target
from compressor.prune import cubic_ramp
from compressor.run.session import Session
from compressor.train import Extension, TrainingRun
from compressor_plugins.losses.contrastive import Contrastive
from compressor_plugins.losses.distillation import Distillation
from compressor_plugins.losses.task import TaskLoss
from compressor_plugins.methods._cap_masks import StraightThrough, masked_weights, soft_mask, top_mask
from compressor_plugins.methods._cap_scores import Scoring, chosen_weights
from compressor_plugins.methods.cap import Cap
from tests.plugins.sessions import FAMILIES, labelled
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

TRAIN: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "checkpoint_every": 3,
    "losses": (TaskLoss(weight=0.1), Distillation(weight=0.9), Contrastive(modules=("SnC", "FiC"), extra_examples=16)),
}
"""20 steps, 2 of warm-up: from step 2 to step 16 more and more goes."""
WEIGHT = "bert.encoder.layer.0.intermediate.dense.weight"


def cap(backend: str = "movement", **given: Any) -> Cap:
    amount = {"final_lambda": 30.0} if backend == "soft-movement" else {"target": Target(sparsity=0.75)}
    train = {**TRAIN, **given.pop("train", {})}
    return Cap(**{"backend": backend, **amount, **given, "train": train})


# Masks.


@pytest.mark.parametrize("count", [0, 1, 5, 12, 20])
def test_exactly_as_many_of_the_highest_stay(count: int):
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    keep = top_mask(scores, count)
    assert int(keep.sum()) == count
    if 0 < count < 20:
        assert scores[keep].min() > scores[~keep].max()


def test_ninety_percent_leave_a_tenth_though_floats_say_less(tmp_path: Path):
    method = cap(target=Target(sparsity=0.9))
    scoring = Scoring(method, TrainingRun(labelled(run_dir=tmp_path), method.train), {})
    scoring.amount = scoring._ramp(20)
    assert scoring.amount < 0.1
    assert scoring._count(torch.zeros(312, 1200)) == 37440


def test_ties_go_by_index():
    assert top_mask(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), 4).tolist() == [
        [True, True, True],
        [False, True, False],
    ]
    assert top_mask(torch.zeros(6), 2).tolist() == [True, True, False, False, False, False]


def test_the_ramp_begins_and_ends_where_it_should():
    ramp = {"start": 10.0, "end": 50.0, "initial": 1.0, "final": 0.1}
    assert [cubic_ramp(step, **ramp) for step in (0, 10, 50, 60)] == [1.0, 1.0, 0.1, 0.1]
    assert cubic_ramp(30, **ramp) == pytest.approx(0.1 + (1.0 - 0.1) / 8)


def test_gradients_go_straight_through_to_the_scores():
    draw = torch.Generator().manual_seed(0)
    weight, scores = (torch.randn(3, 4, generator=draw, requires_grad=True) for _ in range(2))
    mask = torch.rand(3, 4, generator=draw) < 0.5
    factor = torch.randn(3, 4, generator=draw)
    masked = StraightThrough.apply(weight, scores, mask)  # type: ignore[no-untyped-call]
    (masked * factor).sum().backward()
    assert torch.equal(masked, weight.detach() * mask)
    assert torch.equal(scores.grad, weight.detach() * factor)  # type: ignore[arg-type]
    assert torch.equal(weight.grad, mask * factor)  # type: ignore[arg-type]


def test_soft_masks_keep_what_is_above_the_threshold_and_never_too_few():
    assert soft_mask(torch.zeros(20, 30), 0.1).all()  # sigmoid(0) = 0.5
    scores = torch.linspace(-9.0, -8.0, 600).reshape(20, 30)
    keep = soft_mask(scores, 0.1)
    assert int(keep.sum()) == int(0.005 * 600) + 1
    assert scores[keep].min() > scores[~keep].max()


# What is pruned.


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_linear_of_the_encoders_layers_is_chosen_and_nothing_else(model_type: str):
    model = labelled(model_type).model
    names = chosen_weights(cap(), model)
    layers = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear) and "layer." in n]
    assert names == layers
    assert len(names) == 18


def test_the_head_is_chosen_where_that_is_asked_for():
    assert "classifier.weight" in chosen_weights(cap(include_head=True), labelled().model)


def test_no_layer_at_all_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="no layer of the encoder is chosen"):
        cap(op_names=("nothing",)).check(labelled().model)


def masked_model(session: Session, pruned: Pruned) -> nn.Module:
    from compressor.model import shrink

    model = shrink(session.model, session.family, Masks({}), pruned.weights)
    apply_masks(model, pruned.masks)
    return model


@pytest.mark.parametrize("backend", ["movement", "magnitude"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_as_many_weights_go_as_are_asked_for(backend: str, scope: Any, tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    pruned = cap(backend, pruning_scope=scope, **({"refresh": 4} if scope == "global" else {})).prune(session)
    kept = [int(mask.sum()) for mask in pruned.masks.keep.values()]
    sizes = [mask.numel() for mask in pruned.masks.keep.values()]
    assert sum(kept) == int(0.25 * sum(sizes)) == pruned.metrics["of"] - pruned.metrics["removed"]
    assert (kept == [int(0.25 * size) for size in sizes]) == (scope == "local")
    assert not any(pruned.weights[name][~mask].any() for name, mask in pruned.masks.keep.items())
    assert pruned.weights.keys() == dict(session.model.named_parameters()).keys()


def test_the_penalty_decides_how_many_stay(tmp_path: Path):
    given = {"score_learning_rate": 0.5}
    weak, strong = (
        cap("soft-movement", final_lambda=weight, **given)
        .prune(labelled(run_dir=tmp_path / str(weight)))
        .metrics["ratio"]
        for weight in (1.0, 300.0)
    )
    assert 0 <= weak < strong < 1


def test_weights_that_are_masked_keep_their_values_and_the_scores_learn_at_their_own_rate(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    method = cap(train={"losses": (TaskLoss(),), "weight_decay": 0.0})
    run = TrainingRun(session, method.train)
    masks = masked_weights(run.student, {}, [WEIGHT], learned=True)
    one = masks[WEIGHT]
    one.mask[:] = torch.arange(48).unsqueeze(1) < 24
    assert one.scores is not None
    from compressor.train import ParameterGroup

    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - transformers'
            seen.extend(group["lr"] for group in given["optimizer"].param_groups)

    run.fit(Extension(callbacks=[Watch()], groups=[ParameterGroup([one.scores], 0.1)]))
    before = session.model.get_parameter(WEIGHT)
    after = run.student.get_parameter(WEIGHT.replace(".weight", ".parametrizations.weight.original"))
    assert torch.equal(after[24:], before[24:])
    assert (after[:24] != before[:24]).any()
    assert one.scores.detach()[24:].any()  # straight through: they could come back
    assert seen[2] == pytest.approx(100 * seen[0])


def test_embeddings_stay_as_they_are_unless_asked_for(tmp_path: Path):
    name = "bert.embeddings.word_embeddings.weight"
    session = labelled(run_dir=tmp_path)
    frozen = cap().prune(session)
    assert torch.equal(frozen.weights[name], session.model.get_parameter(name))
    assert not torch.equal(frozen.weights["classifier.weight"], session.model.get_parameter("classifier.weight"))
    free = cap(freeze_embeddings=False).prune(labelled(run_dir=tmp_path / "free"))
    assert not torch.equal(free.weights[name], session.model.get_parameter(name))


@pytest.mark.parametrize("backend", ["movement", "soft-movement", "magnitude"])
def test_what_an_earlier_step_removed_stays_removed(backend: str, tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    held = torch.rand(48, 32, generator=torch.Generator().manual_seed(0)) < 0.9
    session.weight_masks = Masks({WEIGHT: held})
    with torch.no_grad():
        session.model.get_parameter(WEIGHT).masked_fill_(~held, 0.0)
    pruned = cap(backend).prune(session)
    assert not (pruned.masks.keep[WEIGHT] & ~held).any()
    assert not pruned.weights[WEIGHT][~held].any()


def test_what_is_handed_back_is_the_model_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = labelled(run_dir=tmp_path)
    before = fingerprint(session.model)
    batch = next(session.calibration.batches(session.device))
    seen: list[Any] = []
    move = Scoring.move

    def watch(self: Scoring, step: int) -> None:
        move(self, step)
        if step == self.run.steps:  # trained, and still under its masks
            with torch.no_grad():
                seen.append(raw_output(self.run.student, batch))

    monkeypatch.setattr(Scoring, "move", watch)
    pruned = cap().prune(session)
    with torch.no_grad():
        assert torch.equal(raw_output(masked_model(session, pruned), batch), seen[0])
        assert not torch.equal(raw_output(session.model, batch), seen[0])
    assert fingerprint(session.model) == before


def test_the_schedule_must_fit_into_the_training(tmp_path: Path):
    with pytest.raises(InputError, match="pruning from step 12 to 12 does not lie within the 20 steps"):
        cap(train={"warmup": 4}, initial_warmup=3).prune(labelled(run_dir=tmp_path))


def test_masks_move_along_the_schedule_and_a_global_cut_rests_between_two_looks(tmp_path: Path):
    method = cap("movement", pruning_scope="global", refresh=5)
    run = TrainingRun(labelled(run_dir=tmp_path), method.train)
    masks = masked_weights(run.student, {}, chosen_weights(method, run.student), learned=True)
    draw = torch.Generator().manual_seed(0)
    for one in masks.values():
        nn.init.normal_(one.scores, generator=draw)  # type: ignore[arg-type]
    scoring = Scoring(method, run, masks)
    total = sum(one.mask.numel() for one in masks.values())
    kept = {}
    for step in range(21):
        scoring.move(step)
        kept[step] = sum(int(one.mask.sum()) for one in masks.values())
    assert kept[0] == kept[2] == kept[4] == total  # the ramp begins at step 2, the next look is at step 5
    assert kept[5] == kept[9] == int(cubic_ramp(5, start=2, end=16, initial=1.0, final=0.25) * total)
    assert kept[10] < kept[9]
    assert kept[20] == int(0.25 * total)


@pytest.mark.parametrize(
    ("backend", "given"),
    [
        ("movement", {"pruning_scope": "global", "refresh": 4}),
        ("soft-movement", {"score_learning_rate": 0.1}),
        ("magnitude", {}),
    ],
)
def test_a_stopped_pruning_goes_on_to_the_same_bits(
    backend: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = cap(backend, **given).prune(labelled(run_dir=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        begin = Scoring.on_step_begin

        def stop(self: Scoring, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 11:
                raise KeyboardInterrupt
            begin(self, args, state, control, **more)

        patch.setattr(Scoring, "on_step_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            cap(backend, **given).prune(labelled(run_dir=tmp_path / "stopped"))
    found = cap(backend, **given).prune(labelled(run_dir=tmp_path / "stopped"))
    assert found.metrics["training"]["resumed_from_step"] == 9
    assert found.masks == expected.masks
    assert all(torch.equal(value, expected.weights[name]) for name, value in found.weights.items())


@pytest.mark.parametrize("backend", ["movement", "soft-movement"])
def test_masked_and_exported_models_agree(backend: str, tmp_path: Path):
    amount = {"final_lambda": 300.0} if backend == "soft-movement" else {"target": {"sparsity": 0.9}}
    train = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3, "losses": ["task", "distillation"]}
    prune = {"method": "cap", "backend": backend, **amount, "score_learning_rate": 0.5, "train": train}
    steps = [{"prune": prune}, {"export": {}}, {"verify": {"sequence": 16, "rounds": 3}}]
    result = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    report = result.report
    found = report["steps"][0]["metrics"]
    assert found["removal_max_abs_diff"] < 1e-5
    assert report["steps"][1]["metrics"]["artifacts"]["model"]["max_abs_diff"] < 1e-4
    assert report["sparsity"]["masks"]["pruned_layers"]["removed"] > 0
    if backend == "movement":
        assert found["ratio"] == pytest.approx(0.9, abs=1e-3)
