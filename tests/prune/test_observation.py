from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.model.outputs import raw_output
from compressor.prune import Showing, show_batches
from compressor.testing import tiny_batch, tiny_model

NAMES = ("bert.encoder.layer.0.output.dense.weight", "bert.pooler.dense.weight", "classifier.weight")
BATCHES = (tiny_batch(), tiny_batch(lengths=(4, 9), seed=1))


def losses(raw: Tensor, batch: Any) -> Tensor:
    return torch.nn.functional.cross_entropy(raw, batch["labels"], reduction="none").unsqueeze(1)


def shown(model: torch.nn.Module, *needs: str, signals: Any = losses, together: bool = False) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    showing = Showing(names=NAMES, needs=frozenset(needs), signals=signals, together=together)
    show_batches(model, lambda **observed: seen.append(observed), BATCHES, showing)
    return seen


def test_gradients_are_those_of_the_loss_and_flags_come_back():
    model = tiny_model().requires_grad_(False)
    seen = shown(model, "gradients")
    assert len(seen) == 2
    assert not any(parameter.requires_grad for parameter in model.parameters())
    other = tiny_model()
    for batch, observed in zip(BATCHES, seen, strict=True):
        other.zero_grad()
        losses(raw_output(other, batch), batch).sum().backward()
        for name in NAMES:
            torch.testing.assert_close(observed["gradients"][name], other.get_parameter(name).grad)


def test_together_is_one_gradient_of_all_rows():
    model = tiny_model()
    (whole,) = shown(model, "gradients", together=True)
    parts = shown(model, "gradients")
    for name in NAMES:
        torch.testing.assert_close(whole["gradients"][name], sum(part["gradients"][name] for part in parts))


def test_every_signal_is_one_observation():
    assert len(shown(tiny_model(), "gradients", signals=lambda raw, _: raw)) == 4


def test_weights_without_a_gradient_are_left_out():
    seen = shown(tiny_model(), "gradients", signals=lambda raw, _: raw.detach().requires_grad_()[:, :1])
    assert [observed["gradients"] for observed in seen] == [{}, {}]


def test_activations_are_of_real_tokens():
    seen = shown(tiny_model(), "activations")
    assert [tuple(observed["activations"][NAMES[0]].shape) for observed in seen] == [(27, 48), (13, 48)]
    assert [tuple(observed["activations"][NAMES[1]].shape) for observed in seen] == [(4, 32), (2, 32)]
    padded = {**BATCHES[0], "input_ids": BATCHES[0]["input_ids"].masked_fill(BATCHES[0]["attention_mask"] == 0, 7)}
    changed: list[Any] = []
    showing = Showing(names=NAMES, needs=frozenset({"activations"}), signals=losses)
    show_batches(tiny_model(), lambda **observed: changed.append(observed), [padded], showing)
    torch.testing.assert_close(changed[0]["activations"][NAMES[0]], seen[0]["activations"][NAMES[0]])


@pytest.mark.parametrize("together", [False, True])
def test_who_needs_nothing_runs_no_batch(*, together: bool):
    (observed,) = shown(tiny_model(), signals=None, together=together)
    assert observed["weights"].keys() == set(NAMES)
