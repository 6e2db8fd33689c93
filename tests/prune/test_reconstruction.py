from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.model import Masks, ParamSlice, shrink
from compressor.model.outputs import raw_output
from compressor.prune import Evidence, Moments, Reconstruction, reconstruct
from compressor.prune.fitting import best_correction
from compressor.testing import tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

Batch = Mapping[str, Tensor]
DENSE = Masks({})
LENGTHS = (7, 3, 12, 5, 9, 11, 4, 8)


def batches(count: int = 6) -> list[dict[str, Tensor]]:
    return [tiny_batch(lengths=LENGTHS, seed=seed) for seed in range(count)]


def first_token(batch: Batch) -> Tensor:
    weights = torch.zeros_like(batch["attention_mask"])
    weights[:, 0] = 1
    return weights


def every_token(batch: Batch) -> Tensor:
    return batch["attention_mask"]


def some_masks(model: nn.Module, family: Any) -> Masks:
    """Remove a third of everything, all heads of one layer and all neurons of another."""
    keep = {group.name: torch.arange(group.units) % 3 > 0 for group in family.groups(model)}
    names = list(keep)
    keep[names[0]] = torch.zeros_like(keep[names[0]])
    keep[names[3]] = torch.zeros_like(keep[names[3]])
    return Masks(keep)


def asked(student: Masks, **changes: Any) -> Reconstruction:
    settings = {"teacher": DENSE, "tuning": "weights", "token_weights": every_token, **changes}
    return Reconstruction(student=student, **settings)


def distance(model: nn.Module, other: nn.Module, inputs: list[dict[str, Tensor]]) -> float:
    with torch.no_grad():
        return sum(float((raw_output(model, b) - raw_output(other, b)).square().sum()) for b in inputs)


@pytest.mark.parametrize("tuning", ["weights", "scales"])
def test_nothing_pruned_and_a_dense_teacher_change_nothing(tuning: str) -> None:
    model = tiny_model()
    everything = Masks({g.name: torch.ones(g.units, dtype=torch.bool) for g in Bert().groups(model)})
    weights, fits = reconstruct(model, Bert(), batches(), asked(everything, tuning=tuning))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-5, atol=1e-5)
    assert len(fits) == 6
    assert all(fit.error_before < 1e-9 for fit in fits)


@pytest.mark.parametrize(("model_type", "family"), [("bert", Bert()), ("distilbert", DistilBert())])
@pytest.mark.parametrize("tuning", ["weights", "scales"])
def test_tuning_brings_the_pruned_model_closer_to_the_dense_one(model_type: str, family: Any, tuning: str) -> None:
    model, inputs = tiny_model(model_type), batches()
    masks = some_masks(model, family)
    weights, fits = reconstruct(model, family, inputs, asked(masks, tuning=tuning))
    assert all(fit.error_after <= fit.error_before for fit in fits)
    untuned, tuned = shrink(model, family, masks), shrink(model, family, masks, weights)
    assert distance(tuned, model, inputs) < distance(untuned, model, inputs)


def test_the_model_stays_as_it_is() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reconstruct(model, Bert(), batches(2), asked(some_masks(model, Bert())))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_removed_twin_is_made_up_for_without_loss() -> None:
    model = tiny_model(num_hidden_layers=2).double()
    keep = {}
    for group in Bert().groups(model):
        if group.kind == "ffn_neurons":
            rows, columns = model.get_submodule(group.block), model.get_submodule(group.consumer.module)
            with torch.no_grad():  # neuron 24 + i does what neuron i does
                rows.weight[24:], rows.bias[24:] = rows.weight[:24], rows.bias[:24]
                columns.weight[:, :24] = columns.weight[:, 24:] * 0.3
            keep[group.name] = torch.arange(48) < 24
    masks, inputs = Masks(keep), batches()
    everything = {g.name: torch.ones(g.units, dtype=torch.bool) for g in Bert().groups(model)}
    weights, fits = reconstruct(model, Bert(), inputs, asked(Masks({**everything, **keep})))
    assert distance(shrink(model, Bert(), masks), model, inputs) > 1e-2
    assert distance(shrink(model, Bert(), masks, weights), model, inputs) < 1e-5**2
    assert [fit.accepted for fit in fits if fit.group in keep] == ["weights", "weights"]


@pytest.mark.parametrize(("model_type", "family"), [("bert", Bert()), ("distilbert", DistilBert())])
def test_emptied_sublayers_get_the_mean_of_what_they_should_give_as_bias(model_type: str, family: Any) -> None:
    model = tiny_model(model_type, num_hidden_layers=1).double()
    attention = family.groups(model)[0]
    whole = {g.name: torch.ones(g.units, dtype=torch.bool) for g in family.groups(model)}
    masks = Masks({**whole, attention.name: torch.zeros(attention.units, dtype=torch.bool)})
    inputs = batches()
    outputs: list[Tensor] = []
    hook = model.get_submodule(attention.consumer.module).register_forward_hook(
        lambda _, __, output: outputs.append(output[torch.arange(8) % 8 != 7])
    )
    with torch.no_grad():
        for batch in inputs:
            raw_output(model, batch)
    hook.remove()
    fitted = [batch["attention_mask"][:7].bool() for batch in inputs]
    given = torch.cat([output[mask] for output, mask in zip(outputs, fitted, strict=True)])
    weights, fits = reconstruct(model, family, inputs, asked(masks))
    assert (fits[0].accepted, fits[0].ridge) == ("bias", 0.0)
    torch.testing.assert_close(weights[f"{attention.consumer.module}.bias"], given.mean(dim=0))


def test_weights_do_not_depend_on_the_batch_size() -> None:
    model = tiny_model().double()
    masks, inputs = some_masks(model, Bert()), batches(3)
    halves = [{name: value[part] for name, value in b.items()} for b in inputs for part in (slice(0, 3), slice(3, 8))]
    expected, _ = reconstruct(model, Bert(), inputs, asked(masks))
    found, _ = reconstruct(model, Bert(), halves, asked(masks))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-8)


def test_weights_do_not_depend_on_padding() -> None:
    model = tiny_model().double()
    masks, inputs = some_masks(model, Bert()), batches(3)
    wider = [{k: nn.functional.pad(v, (0, 7)) if v.ndim == 2 else v for k, v in b.items()} for b in inputs]
    expected, _ = reconstruct(model, Bert(), inputs, asked(masks))
    found, _ = reconstruct(model, Bert(), wider, asked(masks))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-8)


def test_token_weights_matter_in_the_last_layer_only() -> None:
    model, inputs = tiny_model().double(), batches()
    masks = some_masks(model, Bert())
    _, every = reconstruct(model, Bert(), inputs, asked(masks))
    _, first = reconstruct(model, Bert(), inputs, asked(masks, token_weights=first_token))
    _, double = reconstruct(model, Bert(), inputs, asked(masks, token_weights=lambda batch: 2 * every_token(batch)))
    assert [fit.error_after for fit in double] == pytest.approx([fit.error_after for fit in every])
    same = [a.error_before == pytest.approx(b.error_before) for a, b in zip(every, first, strict=True)]
    assert same == [True, True, True, True, False, False]


def moments_of(activations: Tensor, errors: Tensor) -> Moments:
    moments = Moments(activations.shape[1], errors.shape[1], torch.device("cpu"))
    moments.add(activations, errors, torch.ones(len(activations)))
    return moments


@pytest.mark.parametrize(("noise", "sign", "accepted"), [(0.0, 1, "weights"), (10.0, 1, "scales"), (0.0, -1, "none")])
def test_held_out_rows_decide_between_weights_scales_and_nothing(noise: float, sign: int, accepted: str) -> None:
    generator = torch.Generator().manual_seed(0)
    group = Bert().groups(tiny_model())[1]
    weight, seen, unseen, random = (torch.randn(n, 32, generator=generator) for n in (32, 33, 400, 33))
    train = moments_of(seen, 0.5 * seen @ weight.T + noise * random)
    judge = moments_of(unseen, sign * 0.5 * unseen @ weight.T)
    group = replace(group, consumer=ParamSlice("", dim=1, width=32))
    chosen, fit = best_correction(group, "weights", weight, Evidence(train, judge))
    assert fit.accepted == accepted
    assert (chosen is None) == (accepted == "none")
    assert (fit.error_after < fit.error_before) == (accepted != "none")


def test_the_sweep_goes_on_after_a_correction_that_fails_on_held_out_rows() -> None:
    model = tiny_model().double()
    batch = tiny_batch(lengths=(2,) * 7 + (12,))  # too few tokens for 32 columns, and the judge is unlike them
    _, fits = reconstruct(model, Bert(), [batch], asked(some_masks(model, Bert())))
    accepted = [fit.accepted for fit in fits]
    assert "none" in accepted
    assert "weights" in accepted[accepted.index("none") :]


def test_fewer_rows_than_one_held_out_are_judged_by_themselves() -> None:
    model = tiny_model()
    _, fits = reconstruct(model, Bert(), [tiny_batch()], asked(some_masks(model, Bert())))
    assert [fit.accepted for fit in fits].count("none") == 0


def test_a_milder_teacher_is_what_is_aimed_at() -> None:
    model, inputs = tiny_model(), batches()
    groups = Bert().groups(model)
    student = Masks({g.name: torch.arange(g.units) < g.units // 2 for g in groups})
    weights, fits = reconstruct(model, Bert(), inputs, asked(student, teacher=student))
    assert all(fit.error_before < 1e-9 for fit in fits)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-4, atol=1e-4)
