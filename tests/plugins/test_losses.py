"""The losses on outputs made by hand and by tiny models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compressor.errors import InputError
from compressor.model.outputs import accepted_inputs
from compressor.plugin import Loss
from compressor.run.session import Session
from compressor.testing import session_on, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.losses._states import layer_pairs
from compressor_plugins.losses.distillation import Distillation
from compressor_plugins.losses.hidden import Hidden
from compressor_plugins.losses.reused_head import ReusedHead
from compressor_plugins.losses.task import TaskLoss
from compressor_plugins.tasks.squad import Squad
from tests.plugins.sessions import FAMILIES, label_free, labelled

FROM_DENSE: list[Loss] = [Distillation(), Hidden(), ReusedHead()]


def answering() -> Session:
    session = session_on(tiny_model(head="question-answering"), Bert(), Squad(max_length=32))
    for row in session.train_rows:  # type: ignore[assignment]  # dicts, here
        row.update(window=(1, len(row["input_ids"]) - 2), labels=(1, 1))  # type: ignore[attr-defined]
    return session


SESSIONS: dict[str, Any] = {"labels": labelled, "no labels": label_free, "answers": answering}


def outputs(model: Any, batch: dict[str, Tensor]) -> Any:
    given = {name: batch[name] for name in accepted_inputs(model) if name in batch}
    with torch.no_grad():
        return model(**given, output_hidden_states=True)


def padded(batch: dict[str, Tensor], more: int) -> dict[str, Tensor]:
    """Return the batch with more padding, whose token is not even the padding token."""
    inputs = {"input_ids": 7, "attention_mask": 0}
    return {k: functional.pad(v, (0, more), value=inputs[k]) if k in inputs else v for k, v in batch.items()}


@pytest.mark.parametrize("loss", FROM_DENSE, ids=lambda loss: loss.name)
@pytest.mark.parametrize("kind", SESSIONS)
def test_a_student_that_is_the_dense_model_has_no_loss(kind: str, loss: Loss):
    session = SESSIONS[kind]()
    batch = next(session.calibration.batches(session.device))
    value = loss.start(session)(outputs(session.model, batch), outputs(session.teacher, batch), batch)
    assert value.shape == ()
    assert float(value.abs()) <= 1e-7


@pytest.mark.parametrize("loss", [TaskLoss(), *FROM_DENSE], ids=lambda loss: loss.name)
@pytest.mark.parametrize("kind", SESSIONS)
def test_padding_never_counts(kind: str, loss: Loss):
    session = SESSIONS[kind]()
    if loss.needs_labels and session.task.label_free:
        return
    other = (
        tiny_model(head="question-answering", seed=1)
        if kind == "answers"
        else tiny_model(num_labels=None if kind == "no labels" else 2, seed=1)
    )
    run = loss.start(session)
    batch = next(session.calibration.batches(session.device))
    found = [
        float(run(outputs(other, given), outputs(session.teacher, given), given)) for given in (batch, padded(batch, 9))
    ]
    assert found[0] > 1e-3
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_distillation_is_hintons():
    session, other = labelled(), tiny_model(seed=1)
    batch = next(session.calibration.batches(session.device))
    student, teacher = outputs(other, batch), outputs(session.teacher, batch)
    value = Distillation(temperature=3.0).start(session)(student, teacher, batch)
    log_q, p = (student.logits / 3).log_softmax(-1), (teacher.logits / 3).softmax(-1)
    assert float(value) == pytest.approx(9 * float(functional.kl_div(log_q, p, reduction="batchmean")), rel=1e-5)


def test_distillation_of_normalised_embeddings_is_twice_one_minus_the_cosine():
    session, other = label_free(), tiny_model(num_labels=None, seed=1)
    batch = next(session.calibration.batches(session.device))
    student, teacher = outputs(other, batch), outputs(session.teacher, batch)
    one, two = (session.task.output(found.last_hidden_state, batch) for found in (student, teacher))
    expected = float((2 - 2 * functional.cosine_similarity(one, two)).mean())
    assert float(Distillation().start(session)(student, teacher, batch)) == pytest.approx(expected, rel=1e-4)


def test_the_task_loss_is_cross_entropy():
    session = labelled()
    batch = next(session.calibration.batches(session.device))
    found = outputs(session.model, batch)
    expected = float(functional.cross_entropy(found.logits, batch["labels"]))
    assert float(TaskLoss().start(session)(found, None, batch)) == pytest.approx(expected, rel=1e-6)


def test_hidden_compares_the_layers_that_are_asked_for():
    session, other = labelled(), tiny_model(seed=1)
    batch = next(session.calibration.batches(session.device))
    student, teacher = outputs(other, batch), outputs(session.teacher, batch)
    run = Hidden(layers={1: 3}).start(session)
    mask = batch["attention_mask"].bool()
    squares = (student.hidden_states[1] - teacher.hidden_states[3]).square().mean(-1)
    expected = sum(float(row[keep].mean()) for row, keep in zip(squares, mask, strict=True)) / len(mask)
    assert float(run(student, teacher, batch)) == pytest.approx(expected, rel=1e-5)


def test_hidden_refuses_layers_that_are_not_there():
    with pytest.raises(InputError, match=r"the dense model has layers 1 to 3 .* got \[4\]"):
        Hidden(layers={1: 4}).start(labelled())


def test_hidden_pairs_every_layer_with_what_it_was():
    from compressor.model import Masks, shrink

    session = labelled()
    session.model = shrink(session.model, session.family, Masks({}), dropped_layers=(1,))
    assert layer_pairs(session, None) == [(1, 1), (2, 3)]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_reused_head_is_all_behind_the_encoder(model_type: str):
    session = labelled(model_type)
    fixed = ReusedHead().start(session).frozen(session.model)
    encoder = {
        n
        for n, _ in session.model.named_parameters()
        if ".layer." in n or ".embeddings." in n or "embeddings_project" in n
    }
    assert fixed == {name for name, _ in session.model.named_parameters()} - encoder
    assert any("classifier" in name for name in fixed)


def test_weights_are_positive():
    with pytest.raises(ValueError, match="greater than 0"):
        Distillation(weight=0)
