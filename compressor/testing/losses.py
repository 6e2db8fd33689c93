"""Conformance of losses."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from compressor.model.batches import collate
from compressor.model.imprint import Imprint
from compressor.plugin import Loss, Training
from compressor.run.session import Session
from compressor.testing.declarations import assert_declaration_conforms, asserted
from compressor.testing.sessions import tiny_session
from compressor.train import TrainingRun

TOLERANCE = 1e-5


def assert_loss_conforms(loss: Loss, session: Session | None = None, *, separable: bool = True) -> None:
    """Assert that a loss keeps its contract: a plugin author's one-line test.

    It is a finite scalar with a gradient, the mean over its samples of what each alone would have, the same when it is
    computed again, the same after its state was saved and restored; and the dense model stays as it was. It is computed
    where a training computes it, on a student that has left the dense model a little.

    Args:
        loss: with its options.
        session: whose model is trained; default: a tiny BERT with labelled rows of random words.
        separable: whether it is such a mean; False for a contrast of the batch's samples with one another.
    """
    assert_declaration_conforms(loss)
    with TemporaryDirectory() as directory, asserted(loss):
        given = replace(session or tiny_session(), run_dir=Path(directory))
        given.stage.mkdir(parents=True)
        dense = Imprint.of(given.teacher)
        run = _started(loss, given)
        batch = collate([run.rows[index] for index in range(8)], given.tokenizer)
        whole = _value(run, batch)
        assert whole.shape == (), f"expected a scalar; got shape {tuple(whole.shape)}"
        assert bool(whole.isfinite()), f"expected a finite loss; got {whole}"
        torch.autograd.backward(whole)
        reached = [parameter for parameter in run.student.parameters() if parameter.grad is not None]
        assert any(bool(parameter.grad.any()) for parameter in reached if parameter.grad is not None), "no gradient"
        if separable:
            _assert_mean(run, batch, float(whole.detach()))
        state = {name: value.clone() for name, value in run.objective.state_dict_of_losses().items()}
        resumed = _started(loss, given)
        resumed.objective.load_state_dict_of_losses(state)
        again = float(_value(resumed, batch).detach())
        assert again == float(_value(run, batch).detach()), "a restored loss gave another value"
        assert not dense.changes(given.teacher), f"the dense model: {'; '.join(dense.changes(given.teacher))}"


def _assert_mean(run: TrainingRun, batch: dict[str, Tensor], whole: float) -> None:
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(4), slice(4, 8))]
    mean = sum(float(_value(run, half).detach()) for half in halves) / 2
    assert abs(whole - mean) <= TOLERANCE * max(1.0, abs(mean)), (
        f"the loss of 8 samples is {whole:g}, the mean of its halves {mean:g}: expected a mean over samples"
    )


def _started(loss: Loss, session: Session) -> TrainingRun:
    """Set a training up, and move its student away from the dense model, which it equals at first."""
    torch.manual_seed(session.seed)
    run = TrainingRun(session, Training(losses=(loss,), batch_size=8, dropout=False))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return run


def _value(run: TrainingRun, batch: dict[str, Tensor]) -> Tensor:
    found: Tensor = run.objective(**batch)["loss"]
    return found
