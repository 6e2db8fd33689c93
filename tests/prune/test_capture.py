from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.model import Masks, masked, shrink
from compressor.model.outputs import raw_output
from compressor.prune import frozen, gate_gradients
from compressor.testing import tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

Batch = Mapping[str, Tensor]


def losses(raw: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(raw, batch["labels"], reduction="none").unsqueeze(1)


def row(batch: Batch, index: int) -> dict[str, Tensor]:
    return {name: tensor[index : index + 1] for name, tensor in batch.items()}


def padded(batch: Batch, extra: int) -> dict[str, Tensor]:
    return {name: functional.pad(value, (0, extra)) if value.ndim == 2 else value for name, value in batch.items()}


def double(model: nn.Module) -> nn.Module:
    return model.double()


def gate_autograd(model: nn.Module, groups: tuple, batch: Batch, index: int = 0) -> dict[str, Tensor]:
    """Differentiate the mean loss of a batch through gates that are in the graph, as the reference does."""
    gates = {group.name: torch.ones(group.units, dtype=torch.float64, requires_grad=True) for group in groups}
    with masked(model, groups, gates):
        loss = losses(raw_output(model, batch), batch)[:, index].mean()
    return dict(zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True))


@pytest.mark.parametrize(("model_type", "family"), [("bert", Bert()), ("distilbert", DistilBert())])
def test_gate_gradients_equal_autograd_of_every_sample(model_type: str, family: Bert | DistilBert) -> None:
    model, batch = double(tiny_model(model_type, num_hidden_layers=2)), tiny_batch()
    groups = family.groups(model)
    found = gate_gradients(model, groups, [batch], losses)
    for index in range(4):
        for name, expected in gate_autograd(model, groups, row(batch, index)).items():
            torch.testing.assert_close(found[name][index, 0], expected, rtol=1e-6, atol=1e-10)


def test_mean_over_a_batch_equals_the_published_batch_gradient() -> None:
    model, batch = double(tiny_model(num_hidden_layers=2)), tiny_batch()
    groups = Bert().groups(model)
    found = gate_gradients(model, groups, [batch], losses)
    for name, expected in gate_autograd(model, groups, batch).items():
        torch.testing.assert_close(found[name][:, 0].mean(dim=0), expected, rtol=1e-6, atol=1e-10)


def test_gate_gradients_do_not_depend_on_padding_order_or_batch_size() -> None:
    model, batch = double(tiny_model(num_hidden_layers=2)), tiny_batch()
    groups = Bert().groups(model)
    expected = gate_gradients(model, groups, [batch], losses)
    wide = gate_gradients(model, groups, [padded(batch, 7)], losses)
    single = gate_gradients(model, groups, [row(batch, index) for index in (2, 0, 3, 1)], losses)
    for name, values in expected.items():
        torch.testing.assert_close(wide[name], values, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(single[name], values[[2, 0, 3, 1]], rtol=1e-6, atol=1e-10)


def test_every_signal_gets_its_own_gradients() -> None:
    model, batch = double(tiny_model(num_hidden_layers=2)), tiny_batch()
    groups = Bert().groups(model)
    both = gate_gradients(model, groups, [batch], lambda raw, _: raw)
    for index in range(2):
        alone = gate_gradients(model, groups, [batch], lambda raw, _, index=index: raw[:, index : index + 1])
        for name, values in both.items():
            torch.testing.assert_close(values[:, index], alone[name][:, 0])


def test_gate_gradients_leave_flags_gradients_and_hooks_as_they_were() -> None:
    model = tiny_model(num_hidden_layers=1)
    flags = {name: index % 2 == 0 for index, (name, _) in enumerate(model.named_parameters())}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    gate_gradients(model, Bert().groups(model), [tiny_batch()], losses)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_frozen_restores_flags_when_its_block_fails() -> None:
    model = nn.Linear(2, 2)
    inside: list[bool] = []

    def fail() -> None:
        with frozen(model):
            inside.extend(parameter.requires_grad for parameter in model.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [False, False]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_emptied_groups_give_gradients_without_units() -> None:
    model, batch = tiny_model(num_hidden_layers=2), tiny_batch()
    groups = Bert().groups(model)
    empty = Masks({group.name: torch.zeros(group.units, dtype=torch.bool) for group in (groups[0], groups[3])})
    pruned = shrink(model, Bert(), empty)
    shapes = {
        name: tuple(gradient.shape)
        for name, gradient in gate_gradients(pruned, Bert().groups(pruned), [batch], losses).items()
    }
    assert shapes == {
        groups[0].name: (4, 1, 0),
        groups[1].name: (4, 1, 48),
        groups[2].name: (4, 1, 4),
        groups[3].name: (4, 1, 0),
    }


def test_an_encoder_without_any_unit_gives_no_gradients() -> None:
    model, batch = tiny_model(num_hidden_layers=1), tiny_batch()
    groups = Bert().groups(model)
    pruned = shrink(model, Bert(), Masks({g.name: torch.zeros(g.units, dtype=torch.bool) for g in groups}))
    found = gate_gradients(pruned, Bert().groups(pruned), [batch], losses)
    assert {gradient.shape for gradient in found.values()} == {torch.Size([4, 1, 0])}
