"""The contrastive loss: CAP's numbers, its banks, its place in a training."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.model import fingerprint, save
from compressor.plugin import Registry, Training
from compressor.run.session import Session
from compressor.testing import session_on, tiny_model
from compressor.train import CHECKPOINTS, Extension, NumberedRows, Trained, TrainingRun
from compressor_plugins.losses._banks import Encoding
from compressor_plugins.losses._contrast import Vectors, contrast, sentence_vectors
from compressor_plugins.losses._contrastive import AgainstBanks, places_of
from compressor_plugins.losses._pretrained import pretrained_encoder
from compressor_plugins.losses.contrastive import Contrastive
from compressor_plugins.losses.task import TaskLoss
from compressor_plugins.tasks.squad import Squad
from tests.plugins.sessions import FAMILIES, label_free, labelled

FIRST, SECOND = (10.0, 80.0, 170.0, 300.0), (20.0, 70.0, 160.0, 310.0)
LABELS = torch.tensor([0, 1, 0, 1])
CASES: dict[str, Any] = {
    "extras": {
        "given": ([FIRST], [2, 3]),
        "unsupervised": [0.5513778105, 0.4440916694],
        "supervised": [2.5209933165, 2.2949248262],
        "batch": [0.4977347400, 2.4079590714],
        "released": [0.4977347400, 1.2039795357],
    },
    "a row drawn again": {
        "given": ([FIRST], [0, 3]),
        "unsupervised": [0.9992263276, 0.4440916694],
        "supervised": [0.9992263276, 2.2949248262],
        "batch": [0.7216589985, 1.6470755769],
        "released": [0.4811059990, 0.8235377884],
    },
    "two snapshots": {
        "given": ([FIRST, SECOND], [2, 3]),
        "unsupervised": [1.2839907654, 1.1621968430],
        "supervised": [3.2084911392, 2.9404819533],
        "batch": [1.2230938042, 3.0744865463],
        "released": [0.6115469021, 0.7686216366],
    },
}
"""Banks and extras; both terms per anchor; and their means by either norm: the definition's table, in float64."""


def unit(degrees: Any) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def anchors() -> Vectors:
    return Vectors(unit([0.0, 90.0]).requires_grad_(), torch.tensor([0, 1]), torch.tensor([0, 1]))


def others(banks: list[tuple[float, ...]], extras: list[int]) -> Vectors:
    index = torch.tensor([0, 1, *extras])
    vectors = torch.cat([unit(bank)[index] for bank in banks])
    return Vectors(vectors, index.repeat(len(banks)), LABELS[index].repeat(len(banks)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_terms_are_those_of_the_definition(case: dict[str, Any]):
    with torch.no_grad():
        found = contrast(anchors(), others(*case["given"]), 0.5)
    assert found.unsupervised.tolist() == pytest.approx(case["unsupervised"], abs=1e-9)
    assert found.supervised.tolist() == pytest.approx(case["supervised"], abs=1e-9)
    for norm in ("batch", "released"):
        assert [float(mean) for mean in found.means(norm)] == pytest.approx(case[norm], abs=1e-9)


def test_the_order_of_extras_does_not_matter():
    one, other = (contrast(anchors(), others([FIRST], extras), 0.5) for extras in ([2, 3], [3, 2]))
    assert torch.allclose(one.unsupervised, other.unsupervised, atol=1e-12)
    assert torch.allclose(one.supervised, other.supervised, atol=1e-12)


def test_only_the_anchor_itself_has_a_gradient():
    given, bank = anchors(), others([FIRST], [2, 3])
    bank.vectors.requires_grad_()
    contrast(given, bank, 0.5).unsupervised[0].backward()
    assert bank.vectors.grad is None or not bank.vectors.grad.any()
    assert given.vectors.grad is not None
    assert given.vectors.grad[0].any()
    assert not given.vectors.grad[1].any()  # the other anchor is a candidate without a gradient


def test_a_hot_softmax_is_the_logarithm_of_the_number_of_candidates():
    found = contrast(anchors(), others([FIRST], [2, 3]), 1e9)
    assert found.unsupervised.tolist() == pytest.approx([math.log(5)] * 2, abs=1e-6)  # 6 candidates without itself


def test_one_equal_positive_among_orthogonal_ones():
    space = torch.eye(7, dtype=torch.float64)
    given = Vectors(space[:1], torch.tensor([0]))
    found = contrast(given, Vectors(space[torch.tensor([0, 1, 2, 3, 4, 5, 6])], torch.arange(7)), 0.3)
    assert float(found.unsupervised) == pytest.approx(math.log(1 + 6 * math.exp(-1 / 0.3)), abs=1e-9)
    assert float(found.supervised) == 0.0


# Vectors and banks.


def test_vectors_are_of_unit_length_and_padding_never_counts():
    draw = torch.Generator().manual_seed(0)
    states, pooled = torch.randn(2, 5, 4, generator=draw), torch.randn(2, 4, generator=draw)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    mean = sentence_vectors({"last_hidden_state": states}, mask, "mean")
    expected = torch.stack([states[0].mean(0), states[1, :2].mean(0)])
    assert torch.allclose(mean, expected / expected.norm(dim=1, keepdim=True), atol=1e-6)
    first = sentence_vectors({"last_hidden_state": states}, mask, "cls")
    assert torch.allclose(first, states[:, 0] / states[:, 0].norm(dim=1, keepdim=True), atol=1e-6)
    both = sentence_vectors({"last_hidden_state": states, "pooler_output": pooled}, mask, "cls")
    assert torch.allclose(both, pooled / pooled.norm(dim=1, keepdim=True), atol=1e-6)


def rows_of(session: Session) -> NumberedRows:
    return NumberedRows(session.train_rows, np.array([7, 3, 21, 30, 4]))


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("vector", ["cls", "mean"])
def test_a_bank_holds_every_rows_vector_at_its_place(model_type: str, vector: Any, tmp_path: Path):
    session = labelled(model_type, run_dir=tmp_path)
    encoding = Encoding(session, rows_of(session), vector)
    bank = encoding.bank(session.teacher, "the dense model")
    assert (bank.vectors.dtype, bank.vectors.shape) == (np.float16, (5, 32))
    assert isinstance(bank.vectors, np.memmap)
    for place, number in enumerate([7, 3, 21, 30, 4]):
        row = session.train_rows[number]
        alone = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            encoded = session.teacher.base_model(**alone)  # type: ignore[operator]  # a module
        expected = sentence_vectors(encoded, alone["attention_mask"], vector)
        assert torch.allclose(bank.at(np.array([place])), expected, atol=1e-3)


def test_a_bank_is_made_once_and_a_half_written_one_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = labelled(run_dir=tmp_path)
    encoding = Encoding(session, rows_of(session), "cls")
    first = encoding.bank(session.teacher, "the dense model")
    made = np.array(first.vectors)
    encoding.path(first.digest).rename(encoding.directory / f"{first.digest}.part")
    again = encoding.bank(session.teacher, "the dense model")
    assert (again.digest, again.vectors.tobytes()) == (first.digest, made.tobytes())
    monkeypatch.setattr(Encoding, "_make", lambda *_: pytest.fail("made a second time"))
    assert encoding.bank(session.teacher, "the dense model").digest == first.digest


def test_other_weights_rows_or_vectors_are_another_bank(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    one = Encoding(session, rows_of(session), "cls")
    digests = {
        one.bank(session.teacher, "").digest,
        one.bank(tiny_model(seed=1), "").digest,
        Encoding(session, NumberedRows(session.train_rows, np.array([7, 3])), "cls").bank(session.teacher, "").digest,
        Encoding(session, rows_of(session), "mean").bank(session.teacher, "").digest,
    }
    assert len(digests) == 4


def test_a_head_does_not_change_a_bank(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    other = copy.deepcopy(session.teacher)
    torch.nn.init.zeros_(other.classifier.weight)  # type: ignore[arg-type, union-attr]
    encoding = Encoding(session, rows_of(session), "cls")
    assert encoding.bank(session.teacher, "").digest == encoding.bank(other, "").digest


def test_places_are_found_by_number():
    assert places_of(np.array([7, 0, 3])).tolist() == [1, -1, -1, 2, -1, -1, -1, 0]


def test_an_encoder_without_a_trained_pooler_has_no_cls_vectors(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    model = tiny_model(num_labels=None)
    for parameter in model.pooler.parameters():  # type: ignore[union-attr]
        torch.nn.init.zeros_(parameter)
    with pytest.raises(InputError, match="gives no cls vectors"):
        Encoding(session, rows_of(session), "cls").bank(model, "the pre-trained encoder")


# In a training.


def contrastive(**given: Any) -> Contrastive:
    return Contrastive(**{"modules": ("SnC", "FiC"), "extra_examples": 16, **given})


def options(*losses: Any, **given: Any) -> Training:
    return Training(**{"losses": losses, "learning_rate": 1e-3, "batch_size": 8, "epochs": 3, **given})


def loss_of(run: TrainingRun) -> AgainstBanks:
    return next(term.run for term in run.objective.terms.terms if isinstance(term.run, AgainstBanks))


def test_a_training_contrasts_with_the_dense_model_and_takes_a_snapshot_every_epoch(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    run = TrainingRun(session, options(TaskLoss(), contrastive()))
    trained = run.fit()
    loss = loss_of(run)
    assert len({bank.digest for bank in loss.snapshots}) == 2  # three epochs: none before the first
    assert len(list((session.stage / CHECKPOINTS / "banks").glob("*.npy"))) == 3
    assert trained.figures["losses"]["contrastive"]["last"] > 0


def test_the_oldest_snapshots_go(tmp_path: Path):
    run = TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), contrastive(max_snapshots=2), epochs=5))
    run.fit()
    assert len(loss_of(run).snapshots) == 2


def test_contrast_pulls_sentences_towards_the_dense_models(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    session.model = tiny_model(seed=1).requires_grad_(False)
    figures = TrainingRun(session, options(contrastive(modules=("FiC",)), epochs=20)).fit().figures
    assert figures["loss"]["last"] < 0.8 * figures["loss"]["first"]


@pytest.mark.parametrize("norm", ["batch", "released"])
def test_the_loss_is_the_sum_of_its_banks_terms(norm: Any, tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    chosen = contrastive(norm=norm, unsupervised=0.5, supervised=0.25, extra_examples=0)
    run = TrainingRun(session, options(TaskLoss(), chosen))
    run.snapshot()
    batch, plain = collated(run, [0, 1, 2, 3]), TrainingRun(session, options(TaskLoss()))
    with torch.no_grad():
        found = float(run.objective(**batch)["loss"]) - float(plain.objective(**batch)["loss"])
    loss = loss_of(run)
    bank = loss._fixed[0]
    with torch.no_grad():
        encoded = session.model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"])  # type: ignore[operator]
    vectors = sentence_vectors(encoded, batch["attention_mask"], "cls")
    given = Vectors(vectors, batch["index"], batch["labels"])
    terms = contrast(given, Vectors(bank.at(np.arange(4)), batch["index"], batch["labels"]), 0.1)
    unsupervised, supervised = terms.means(norm)
    assert found == pytest.approx(2 * float(0.5 * unsupervised + 0.25 * supervised), rel=1e-4)


def collated(run: TrainingRun, places: list[int]) -> dict[str, Tensor]:
    from compressor.model import collate

    return collate([run.rows[place] for place in places], run.session.tokenizer)


def test_extras_are_other_rows_drawn_without_repeats_and_new_for_every_batch(tmp_path: Path):
    run = TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), contrastive()))
    loss = loss_of(run)
    own = np.array([3, 1, 2])
    drawn = loss._extra(own, 10)
    assert len(set(drawn.tolist())) == 10
    assert not set(drawn.tolist()) & {1, 2, 3}
    assert drawn.tolist() == loss._extra(own, 10).tolist() != loss._extra(np.array([3, 1, 4]), 10).tolist()
    assert len(loss._extra(own, 4096)) == 37  # a small set: all that there is, where the reference fails


class Stop(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "step", [5, 7, 12], ids=["before the first snapshot is in a checkpoint", "within an epoch", "in the last"]
)
def test_a_stopped_training_goes_on_with_the_same_snapshots(step: int, tmp_path: Path):
    given = {"checkpoint_every": 2, "epochs": 3}

    def run(place: str) -> TrainingRun:
        return TrainingRun(labelled(run_dir=tmp_path / place), options(TaskLoss(), contrastive(), **given))

    whole = run("whole")
    expected: Trained = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        run("stopped").fit(Extension(callbacks=[Stop(step)]))
    resumed = run("stopped")
    found = resumed.fit()
    assert found.figures["resumed_from_step"] == step - step % 2
    assert fingerprint(found.model) == fingerprint(expected.model)
    assert [b.digest for b in loss_of(resumed).snapshots] == [b.digest for b in loss_of(whole).snapshots]


def test_a_lost_snapshot_is_said(tmp_path: Path):
    run = TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), contrastive()))
    run.snapshot()
    state = run.objective.state_dict_of_losses()
    for path in (run.session.stage / CHECKPOINTS / "banks").glob("*.npy"):
        path.unlink()
    with pytest.raises(InputError, match="snapshot are missing"):
        run.objective.load_state_dict_of_losses(state)


def test_regression_and_tasks_without_labels_have_the_unsupervised_term_alone(tmp_path: Path):
    session = label_free(run_dir=tmp_path)
    session.model = tiny_model(num_labels=None, seed=1).requires_grad_(False)
    run = TrainingRun(session, options(contrastive(modules=("FiC",), vector="mean")))
    assert loss_of(run)._labels is None
    assert run.fit().figures["loss"]["first"] > 0


def test_answers_have_the_unsupervised_term_alone_and_the_first_tokens_vector(tmp_path: Path):
    session = session_on(
        tiny_model(head="question-answering"), FAMILIES["bert"], Squad(max_length=32), run_dir=tmp_path
    )
    for row in session.train_rows:
        row.update(window=(1, len(row["input_ids"]) - 2), labels=(1, 1))  # type: ignore[attr-defined]
    run = TrainingRun(session, options(TaskLoss(), contrastive()))
    assert loss_of(run)._labels is None
    assert run.fit().figures["losses"]["contrastive"]["first"] > 0


# The pre-trained encoder.


def test_prc_is_the_encoder_that_is_named(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    save(tiny_model(num_labels=None, seed=3), tmp_path / "pretrained")
    chosen = contrastive(modules=("PrC",), pretrained=str(tmp_path / "pretrained"))
    run = TrainingRun(session, options(TaskLoss(), chosen))
    other = Encoding(session, run.rows, "cls").bank(tiny_model(num_labels=None, seed=3), "the same")
    assert loss_of(run)._fixed[0].digest == other.digest


def test_prc_is_what_the_run_started_from_where_that_is_not_the_dense_model(tmp_path: Path):
    save(tiny_model(seed=3), tmp_path / "source")
    session = labelled(run_dir=tmp_path)
    session.source = tmp_path / "source"
    run = TrainingRun(session, options(TaskLoss(), contrastive(modules=("PrC",))))
    assert loss_of(run)._fixed[0].digest == Encoding(session, run.rows, "cls").bank(tiny_model(seed=3), "").digest
    save(session.teacher, tmp_path / "source")
    with pytest.raises(InputError, match="the run started from the fine-tuned one"):
        TrainingRun(session, options(TaskLoss(), contrastive(modules=("PrC",))))


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("head", ["sequence-classification", "question-answering"])
def test_prc_of_the_same_weights_gives_the_same_vectors(model_type: str, head: Any, tmp_path: Path):
    session = session_on(
        tiny_model(model_type, head=head), FAMILIES[model_type], Squad(max_length=32), run_dir=tmp_path
    )
    save(session.model, tmp_path / "same")
    given = Contrastive(modules=("PrC",), pretrained=str(tmp_path / "same"))
    encoder = pretrained_encoder(given, session, session.model)
    encoding = Encoding(session, rows_of(session), "cls")
    one, other = (encoding.bank(model, "").vectors for model in (encoder, session.model))
    assert np.array_equal(one, other)


def test_another_pre_trained_encoder_than_before_is_said(tmp_path: Path):
    save(tiny_model(num_labels=None, seed=3), tmp_path / "pretrained")
    chosen = contrastive(modules=("PrC",), pretrained=str(tmp_path / "pretrained"))
    state = TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), chosen)).objective.state_dict_of_losses()
    save(tiny_model(num_labels=None, seed=4), tmp_path / "pretrained")
    run = TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), chosen))
    with pytest.raises(InputError, match="is another one than when this training began"):
        run.objective.load_state_dict_of_losses(state)


def test_prc_of_another_width_is_refused(tmp_path: Path):
    save(tiny_model(num_labels=None, hidden_size=16), tmp_path / "narrow")
    chosen = contrastive(modules=("PrC",), pretrained=str(tmp_path / "narrow"))
    with pytest.raises(InputError, match="has hidden_size 16; the model has 32"):
        TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), chosen))


# Options.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modules": []}, "expected one or more of PrC, SnC, FiC"),
        ({"modules": ["FiC", "FiC"]}, "each once"),
        ({"unsupervised": 0, "supervised": 0}, "nothing would be learned"),
        ({"modules": ["FiC"], "pretrained": "x"}, "which is not among modules"),
        ({"pretrained": "./nowhere"}, "no such directory"),
        ({"temperature": 0}, "greater than 0"),
        ({"pretrained_revision": "main"}, "pretrained_revision is of pretrained"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Contrastive(**given)


@pytest.mark.parametrize(
    ("given", "message"), [({"supervised": 1.0}, "needs classes"), ({"unsupervised": 0}, "has no classes")]
)
def test_a_task_without_classes_is_known_before_a_model_loads(given: dict[str, Any], message: str):
    task = SimpleNamespace(name="squad", head="question-answering", num_labels=2, label_free=False, problem_type=None)
    with pytest.raises(ValidationError, match=message):
        Contrastive.model_validate(given, context={"registry": Registry.load(), "task": task})


def test_spelt_out_options_validate_back_for_a_task_without_classes():
    task = SimpleNamespace(name="squad", head="question-answering", num_labels=2, label_free=False, problem_type=None)
    context = {"registry": Registry.load(), "task": task}
    one = Contrastive.model_validate({}, context=context)
    assert Contrastive.model_validate(one.options(), context=context) == one


def test_the_figures_are_plain_data(tmp_path: Path):
    json.dumps(TrainingRun(labelled(run_dir=tmp_path), options(TaskLoss(), contrastive())).fit().figures)
