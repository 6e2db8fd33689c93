from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model.emptied import BiasOnly, EmptyAttention
from compressor.model.groups import ParamSlice, PrunableGroup
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output
from compressor.model.surgery import masked, shrink
from compressor.testing import assert_masked_equals_shrunk, example_masks, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

BERT = Bert()
ATTENTION, FFN = "encoder.layer.1.attention", "encoder.layer.1.ffn"


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return raw_output(model, tiny_batch(labels=False))


def keep(units: int, *ids: int) -> Tensor:
    return torch.isin(torch.arange(units), torch.tensor(ids))


def test_masked_changes_the_output_only_inside_the_block() -> None:
    model = tiny_model()
    before = output(model)
    with masked(model, BERT.groups(model), {ATTENTION: keep(4, 0)}):
        assert not torch.equal(output(model), before)
    assert torch.equal(output(model), before)


def test_masked_removes_its_hooks_when_the_block_fails() -> None:
    model = tiny_model()
    before = output(model)
    with pytest.raises(ZeroDivisionError), masked(model, BERT.groups(model), {FFN: keep(48)}):
        raise ZeroDivisionError
    assert torch.equal(output(model), before)


def test_masks_of_ones_change_nothing() -> None:
    model = tiny_model()
    ones = {group.name: torch.ones(group.units, dtype=torch.bool) for group in BERT.groups(model)}
    before = output(model)
    with masked(model, BERT.groups(model), ones):
        assert torch.equal(output(model), before)


def test_gate_gradients_are_finite_differences() -> None:
    model = tiny_model().double()
    groups, batch = BERT.groups(model), tiny_batch(labels=False)

    def total(gate: Tensor) -> Tensor:
        with masked(model, groups, {ATTENTION: gate}):
            return raw_output(model, batch).sum()

    gate = torch.ones(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (gate,))
    assert total(gate).isfinite()


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"encoder.layer.1.atention": keep(4, 0)}, "did you mean 'encoder.layer.1.attention'"),
        ({ATTENTION: keep(5, 0)}, r"expected shape \(4,\), got \(5,\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(masks: Mapping[str, Tensor], said: str) -> None:
    model = tiny_model()
    with pytest.raises(CompressorError, match=said):
        shrink(model, BERT, Masks(masks))
    with pytest.raises(CompressorError, match=said), masked(model, BERT.groups(model), masks):
        pass


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "bert.encoder.layer.0.output.dense.weigth",
            (32, 48),
            "did you mean 'bert.encoder.layer.0.output.dense.weight'",
        ),
        ("bert.encoder.layer.0.output.dense.weight", (32, 47), r"expected shape \(32, 48\).*got \(32, 47\)"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(CompressorError, match=said):
        shrink(tiny_model(), BERT, Masks({}), {name: torch.zeros(shape)})


def test_weights_are_copied_in_before_units_are_removed() -> None:
    model, changed = tiny_model(), tiny_model()
    name = "bert.encoder.layer.1.output.dense.weight"
    weight = torch.randn(32, 48)
    with torch.no_grad():
        changed.get_parameter(name).copy_(weight)
    masks = example_masks(BERT.groups(model))["ragged"]
    assert torch.equal(output(shrink(model, BERT, masks, {name: weight})), output(shrink(changed, BERT, masks)))
    assert not torch.equal(model.get_parameter(name), weight)


def test_shrunk_copy_keeps_class_dtype_and_requires_grad_and_is_in_eval_mode() -> None:
    model = tiny_model().double().train()
    model.get_parameter("bert.encoder.layer.1.intermediate.dense.weight").requires_grad_(False)
    model.get_parameter("bert.encoder.layer.2.attention.output.dense.bias").requires_grad_(False)
    shrunk = shrink(model, BERT, example_masks(BERT.groups(model))["ragged"])
    assert type(shrunk) is type(model)
    assert not any(module.training for module in shrunk.modules())
    assert model.training
    for name, parameter in shrunk.named_parameters():
        assert parameter.dtype == torch.float64
        assert parameter.requires_grad == model.get_parameter(name).requires_grad, name


def test_every_parameter_of_a_ragged_model_gets_a_gradient() -> None:
    model = tiny_model()
    shrunk = shrink(model, BERT, example_masks(BERT.groups(model))["ragged"])
    raw_output(shrunk, tiny_batch(labels=False)).square().sum().backward()
    without = [name for name, parameter in shrunk.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("family", "model_type"), [(BERT, "bert"), (BERT, "roberta"), (BERT, "electra"), (DistilBert(), "distilbert")]
)
def test_masked_equals_shrunk_to_ten_digits_in_float64(family: Any, model_type: str) -> None:
    model = tiny_model(model_type).double()
    for masks in example_masks(family.groups(model)).values():
        assert_masked_equals_shrunk(model, family, masks, tiny_batch(labels=False), tolerance=1e-10)


def test_units_are_physically_gone() -> None:
    model = tiny_model()
    shrunk = shrink(model, BERT, Masks({ATTENTION: keep(4, 1, 3), FFN: keep(48, 0, 5, 47)}))
    assert shrunk.get_parameter("bert.encoder.layer.1.attention.self.query.weight").shape == (16, 32)
    assert shrunk.get_parameter("bert.encoder.layer.1.attention.output.dense.weight").shape == (32, 16)
    assert torch.equal(
        shrunk.get_parameter("bert.encoder.layer.1.intermediate.dense.bias"),
        model.get_parameter("bert.encoder.layer.1.intermediate.dense.bias")[[0, 5, 47]],
    )


@pytest.mark.parametrize(("family", "model_type"), [(BERT, "bert"), (DistilBert(), "distilbert")])
def test_emptied_sublayers_keep_their_bias_under_its_name(family: Any, model_type: str) -> None:
    model = tiny_model(model_type)
    shrunk = shrink(model, family, example_masks(family.groups(model))["nothing"])
    for group in family.groups(shrunk):
        assert group.units == 0
        assert isinstance(shrunk.get_submodule(group.consumer.module), BiasOnly)
        if group.kind == "heads":
            assert isinstance(shrunk.get_submodule(group.block), EmptyAttention)
        bias = f"{group.consumer.module}.bias"
        assert torch.equal(shrunk.state_dict()[bias], model.state_dict()[bias])
        assert f"{group.consumer.module}.weight" not in shrunk.state_dict()


@pytest.mark.parametrize(("family", "model_type"), [(BERT, "bert"), (DistilBert(), "distilbert")])
def test_a_pruned_model_can_be_pruned_again_and_ids_mean_the_dense_model(family: Any, model_type: str) -> None:
    model = tiny_model(model_type)
    attention, ffn = (group.name for group in family.groups(model)[2:4])
    once = shrink(model, family, Masks({attention: keep(4, 0, 2, 3), ffn: keep(48, *range(10, 20))}))
    twice = assert_masked_equals_shrunk(
        once,
        family,
        Masks({**_everything(once, family), attention: keep(3, 1, 2), ffn: keep(10, 1, 9)}),
        tiny_batch(labels=False),
    )
    at_once: Any = shrink(model, family, Masks({attention: keep(4, 2, 3), ffn: keep(48, 11, 19)}))
    torch.testing.assert_close(output(twice), output(at_once), rtol=0, atol=0)
    config: Any = twice.config
    assert config.pruned_shapes["kept_heads"] == [[0, 1, 2, 3], [2, 3], [0, 1, 2, 3]]
    assert config.pruned_shapes["kept_ffn_neurons"][1] == [11, 19]
    assert config.pruned_shapes["heads"] == [4, 2, 4]
    assert config.pruned_shapes["ffn_neurons"] == [48, 2, 48]
    assert config.pruned_shapes == at_once.config.pruned_shapes


def test_an_emptied_model_can_be_pruned_again() -> None:
    model = tiny_model()
    emptied = shrink(model, BERT, Masks({ATTENTION: keep(4), FFN: keep(48)}))
    masks = _everything(emptied, BERT) | {"encoder.layer.0.ffn": keep(48, 3)}
    again = assert_masked_equals_shrunk(emptied, BERT, Masks(masks), tiny_batch(labels=False))
    config: Any = again.config
    assert config.pruned_shapes["ffn_neurons"] == [1, 0, 48]
    assert config.pruned_shapes["heads"] == [4, 0, 4]


def test_a_model_that_keeps_everything_is_not_called_pruned() -> None:
    model = tiny_model()
    same = shrink(model, BERT, Masks(_everything(model, BERT)))
    assert torch.equal(output(same), output(model))
    assert not hasattr(same.config, "pruned_shapes")


def _everything(model: nn.Module, family: Any) -> dict[str, Tensor]:
    return {group.name: torch.ones(group.units, dtype=torch.bool) for group in family.groups(model)}


class Fused(nn.Module):
    """Four neurons made by one Linear that holds two rows per neuron, as in gated FFNs, without biases behind."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.wide = nn.Linear(3, 8)
        self.out = nn.Linear(4, 3, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        value, gate = self.wide(hidden).chunk(2, dim=-1)
        output: Tensor = self.out(value * gate.sigmoid())
        return output


class FusedFamily:
    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        out: Any = model.get_submodule("out")
        producers = ParamSlice("wide", dim=0), ParamSlice("wide", dim=0, offset=4)
        return (
            PrunableGroup(
                name="ffn", kind="ffn_neurons", layer="", index=0, units=out.in_features,
                producers=producers, consumer=ParamSlice("out", dim=1), block="wide",
            ),
        )  # fmt: skip

    def fixed_layers(self, _: nn.Module, /) -> dict[int, str]:
        return {}

    def after_shrink(self, model: nn.Module) -> None:
        model.touched = torch.ones(())


def test_slices_of_one_fused_linear_are_removed_together() -> None:
    model, hidden = Fused(), torch.randn(5, 3)
    with masked(model, FusedFamily().groups(model), {"ffn": keep(4, 0, 3)}):
        expected = model(hidden)
    shrunk = shrink(model, FusedFamily(), Masks({"ffn": keep(4, 0, 3)}))
    torch.testing.assert_close(shrunk(hidden), expected)
    assert shrunk.get_parameter("wide.weight").shape == (4, 3)
    assert torch.equal(shrunk.touched, torch.ones(())), "the family's after_shrink was not called"  # type: ignore[arg-type]  # set above


def test_bias_only_without_a_bias_gives_zeros() -> None:
    left_over = BiasOnly(nn.Linear(4, 3, bias=False))
    assert torch.equal(left_over(torch.randn(2, 5, 4)), torch.zeros(2, 5, 3))


def test_a_table_that_names_no_linear_is_refused() -> None:
    model = Fused()
    model.wide = nn.Identity()  # type: ignore[assignment]  # the mistake under test
    with pytest.raises(CompressorError, match="wide: the family's table expects a Linear, found Identity"):
        shrink(model, FusedFamily(), Masks({"ffn": keep(4, 0)}))
