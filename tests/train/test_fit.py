"""Training on tiny sessions: what moves, what holds, what resumes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.model import fingerprint
from compressor.model.masks import Masks
from compressor.plugin import Training
from compressor.run.session import Session
from compressor.train import Extension, Trained, TrainingRun
from compressor.train.fit import warmup_steps
from compressor_plugins.losses.distillation import Distillation
from compressor_plugins.losses.hidden import Hidden
from compressor_plugins.losses.reused_head import ReusedHead
from compressor_plugins.losses.task import TaskLoss
from tests.plugins.sessions import label_free, labelled

WEIGHT = "bert.encoder.layer.1.intermediate.dense.weight"


def options(**changes: Any) -> Training:
    given = {"losses": (TaskLoss(),), "learning_rate": 1e-3, "batch_size": 8, **changes}
    given |= {} if {"epochs", "max_steps"} & given.keys() else {"epochs": 2}
    return Training(**given)


def train(session: Session, extension: Extension | None = None, **changes: Any) -> Trained:
    return TrainingRun(session, options(**changes)).fit(extension)


def difference(one: Trained, other: Trained) -> float:
    """Return the largest difference of weights; biases of keys have no effect, and their gradient is noise."""
    states = (one.model.state_dict(), other.model.state_dict())
    return max(float((states[0][n] - states[1][n]).abs().max()) for n in states[0] if not n.endswith("key.bias"))


def test_training_lowers_the_loss_and_leaves_the_session_alone(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    before = fingerprint(session.model)
    trained = train(session, epochs=20)
    assert trained.figures["loss"]["last"] < 0.9 * trained.figures["loss"]["first"]
    assert (trained.figures["steps"], trained.figures["samples"]) == (100, 800)
    assert fingerprint(session.model) == before != fingerprint(trained.model)
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())
    assert not trained.model.training


def test_the_same_seed_gives_the_same_weights(tmp_path: Path):
    one, other = (train(labelled(run_dir=tmp_path / name)) for name in ("one", "other"))
    assert fingerprint(one.model) == fingerprint(other.model)


def test_dropout_works_only_where_it_is_asked_for(tmp_path: Path):
    zero = [train(labelled(run_dir=tmp_path), losses=(Distillation(),), dropout=d).figures for d in (True, False)]
    assert zero[0]["loss"]["first"] > 1e-4
    assert zero[1]["loss"]["first"] <= 1e-7


def damaged(tmp_path: Path) -> Session:
    """Return a session whose model differs from the dense one, so that there is something to learn from that."""
    session = labelled(run_dir=tmp_path)
    session.model = copy.deepcopy(session.model)
    with torch.no_grad():
        session.model.get_parameter(WEIGHT).mul_(0.5)
    return session


@pytest.mark.parametrize("loss", [TaskLoss(), Hidden(), Distillation()], ids=lambda loss: loss.name)
def test_parts_of_a_batch_change_nothing_but_memory(loss: Any, tmp_path: Path):
    whole, parts = (
        train(damaged(tmp_path / str(number)), losses=(loss,), dropout=False, gradient_accumulation=number)
        for number in (1, 4)
    )
    assert whole.figures["loss"]["first"] > 0
    assert difference(whole, parts) < 2e-6


def masks() -> Masks:
    draw = torch.Generator().manual_seed(0)
    return Masks({WEIGHT: torch.rand(48, 32, generator=draw) < 0.5})


def test_masked_weights_are_zero_after_every_step_and_the_others_move(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    session.weight_masks = masks()
    run = TrainingRun(session, options(weight_decay=0.1))
    seen = []

    class Watching(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
            weight = run.student.get_parameter(WEIGHT).detach()
            seen.append(float(weight[~masks().keep[WEIGHT]].abs().max()))

    trained = run.fit(Extension(callbacks=(Watching(),)))
    assert seen == [0.0] * 10
    kept = masks().keep[WEIGHT]
    assert not trained.model.get_parameter(WEIGHT)[~kept].signbit().any()  # -0.0 would not compress
    assert (trained.model.get_parameter(WEIGHT)[kept] != session.model.get_parameter(WEIGHT)[kept]).all()


def test_a_reused_head_stays_bit_by_bit_and_gets_no_gradient(tmp_path: Path):
    session = damaged(tmp_path)
    run = TrainingRun(session, options(losses=(ReusedHead(), Distillation()), weight_decay=0.5))
    fixed = {name for name, parameter in run.student.named_parameters() if not parameter.requires_grad}
    assert fixed == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    trained = run.fit().model
    for name, parameter in session.teacher.named_parameters():
        assert torch.equal(parameter, trained.get_parameter(name)) == (name in fixed), name


def test_what_no_loss_depends_on_is_not_decayed_either(tmp_path: Path):
    session = label_free(run_dir=tmp_path)
    session.model = copy.deepcopy(session.model)
    trained = train(session, losses=(Distillation(),), weight_decay=0.5).model
    for name in ("pooler.dense.weight", "pooler.dense.bias"):
        assert torch.equal(trained.get_parameter(name), session.model.get_parameter(name))
    assert not torch.equal(trained.get_parameter(WEIGHT[5:]), session.model.get_parameter(WEIGHT[5:]))


class Counting:
    """State of a method: the sum of a gradient over the steps so far."""

    def __init__(self) -> None:
        self.total = torch.zeros(48, 32)

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"total": self.total}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.total = state["total"]


class Method(TrainerCallback):
    """What a method that prunes while it trains does: watches gradients, changes masks on its way."""

    def __init__(self, run: TrainingRun, *, stop: int | None = None) -> None:
        self.run, self.stop, self.state = run, stop, Counting()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        if state.global_step == 2:
            self.run.enforced.hold(masks())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the same
        gradient = self.run.student.get_parameter(WEIGHT).grad
        assert gradient is not None
        self.state.total = self.state.total + gradient

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the same
        if state.global_step == self.stop:
            raise KeyboardInterrupt


def with_method(directory: Path, *, stop: int | None = None, **changes: Any) -> tuple[Trained, Method]:
    given = {"epochs": 3, "checkpoint_every": 3, "losses": (TaskLoss(), Hidden()), **changes}
    run = TrainingRun(labelled(run_dir=directory), options(**given))
    method = Method(run, stop=stop)
    return run.fit(Extension((method,), {"method": method.state}, key="k")), method


STOPS = {"in the first epoch": 4, "at the end of an epoch": 6, "in the last epoch": 14}
"""Steps (of 15, 5 an epoch) that are followed by a kill; checkpoints are of steps 3, 6, 9 and 12."""


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_stopped_training_goes_on_to_the_same_bytes(stop: int, tmp_path: Path):
    whole, undisturbed = with_method(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        with_method(tmp_path / "stopped", stop=stop)
    resumed, method = with_method(tmp_path / "stopped")
    expected = stop - stop % 3 - (3 if stop % 3 == 0 else 0)
    assert resumed.figures.pop("resumed_from_step") == expected  # type: ignore[attr-defined]
    assert fingerprint(resumed.model) == fingerprint(whole.model)
    assert torch.equal(method.state.total, undisturbed.state.total)
    assert resumed.figures == whole.figures


def test_an_incomplete_newest_checkpoint_is_ignored(tmp_path: Path):
    whole, _ = with_method(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        with_method(tmp_path / "stopped", stop=10)
    newest = tmp_path / "stopped/stages/01-step/checkpoints/checkpoint-9"
    (newest / "complete.json").unlink()
    (newest / "optimizer.pt").write_bytes(b"")
    resumed, _ = with_method(tmp_path / "stopped")
    assert resumed.figures["resumed_from_step"] == 6
    assert fingerprint(resumed.model) == fingerprint(whole.model)


def test_a_checkpoint_of_other_options_is_not_used(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        with_method(tmp_path, stop=10)
    trained, _ = with_method(tmp_path, learning_rate=2e-3)
    assert "resumed_from_step" not in trained.figures


def test_checkpoints_hold_no_pickled_arguments_and_two_stay(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        with_method(tmp_path, stop=13)
    found = sorted((tmp_path / "stages/01-step/checkpoints").iterdir())
    assert [path.name for path in found] == ["checkpoint-12", "checkpoint-9"]
    assert {path.name for path in found[0].iterdir()} == {
        "complete.json",
        "losses.safetensors",
        "masks.safetensors",
        "method.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
        "weights.safetensors",
    }


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path):
    with pytest.raises(InputError, match=r"diverged.* at step [24]\b") as error:  # looked at every second step of 20
        train(labelled(run_dir=tmp_path), learning_rate=1e30, max_grad_norm=0, warmup=0, epochs=4)
    assert "learning_rate" in error.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch_size": 64}, "40 train rows are fewer"), ({"samples": 5}, "5 train rows are fewer")],
)
def test_too_few_rows_are_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        TrainingRun(labelled(run_dir=tmp_path), options(**changes))


def test_a_batch_that_does_not_divide_among_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="batch_size 8 does not divide into 1 parts for 3 processes"):
        TrainingRun(labelled(run_dir=tmp_path), options())


def test_samples_and_fraction_shorten_an_epoch(tmp_path: Path):
    steps = [
        TrainingRun(labelled(run_dir=tmp_path), options(**given)).steps
        for given in ({}, {"samples": 16}, {"fraction": 0.6}, {"max_steps": 7}, {"batch_size": 4, "epochs": 1.1})
    ]
    assert steps == [10, 4, 6, 7, 11]


@pytest.mark.parametrize(
    ("given", "steps"),
    [({}, 10), ({"warmup": 0.25}, 25), ({"warmup": 7}, 7), ({"schedule": "constant"}, 0), ({"warmup": 500}, 100)],
)
def test_warmup_is_a_share_or_a_number_of_steps(given: dict[str, Any], steps: int):
    assert warmup_steps(options(**given), 100) == steps


def test_bf16_trains_float32_weights(tmp_path: Path):
    trained = train(labelled(run_dir=tmp_path), precision="bf16", epochs=20)
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}
    assert trained.figures["loss"]["last"] < 0.9 * trained.figures["loss"]["first"]
