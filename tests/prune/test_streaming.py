from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.model import WeightFilter, filtered_weights
from compressor.model.checkpoint import fingerprint
from compressor.model.outputs import raw_output
from compressor.prune import Stream, temporary_shelf
from compressor.testing import tiny_batch, tiny_model
from tests.plugins.sessions import FAMILIES

BATCHES = (tiny_batch(), tiny_batch(lengths=(4, 9), seed=1))


def streamed(model_type: str, prune: Any, **options: Any) -> tuple[torch.nn.Module, Stream, list[str]]:
    model = tiny_model(model_type)
    names = list(filtered_weights(model, WeightFilter(**options)))
    with temporary_shelf(torch.device("cpu")) as shelf:
        stream = Stream(model, FAMILIES[model_type].groups(model), batches=lambda: BATCHES, shelf=shelf)
        stream.prune(names, prune)
    return model, stream, names


def grams_of(model: torch.nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Return the Gram matrices of what layers read, real tokens only, by plain forward passes."""
    grams: dict[str, Tensor] = {}
    for batch in BATCHES:
        read: dict[str, Tensor] = {}
        hooks = [
            model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
                lambda _, inputs, name=name, read=read: read.update({name: inputs[0]})
            )
            for name in names
        ]
        with torch.no_grad():
            raw_output(model, batch)
        for hook in hooks:
            hook.remove()
        for name, tensor in read.items():
            rows = tensor[batch["attention_mask"].bool()] if tensor.ndim == 3 else tensor
            grams[name] = grams.get(name, 0) + rows.double().T @ rows.double()  # type: ignore[operator]
    return grams


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_each_weight_sees_what_it_reads_in_the_model_pruned_so_far(model_type: str):
    seen: dict[str, Tensor] = {}

    def halve(name: str, weight: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
        seen[name] = gram
        mask = torch.arange(weight.numel()).reshape(weight.shape) % 2 == 0
        return weight * mask, mask

    model, stream, names = streamed(model_type, halve)
    before = fingerprint(model)
    assert list(seen) == names  # in the order of use, which is the model's here
    assert stream.masks.keys() == stream.weights.keys() == set(names)
    replayed = tiny_model(model_type)
    for name in names:
        torch.testing.assert_close(grams_of(replayed, [name])[name], seen[name], rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            replayed.get_parameter(name).copy_(stream.weights[name])
    assert fingerprint(model) == before == fingerprint(tiny_model(model_type))
    assert all(torch.equal(stream.student.get_parameter(name), stream.weights[name]) for name in names)


def test_only_the_chosen_weights_change():
    def zeroed(_: str, weight: Tensor, __: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.bool)

    model, stream, names = streamed("bert", zeroed, op_names=[r"layer\.1\.output"])
    assert names == ["bert.encoder.layer.1.output.dense.weight"]
    changed = [
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, stream.student.get_parameter(name))
    ]
    assert changed == names
