"""Maps read off projections are the model's own, for every family and implementation, one layer at a time."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.errors import CompressorError, InputError
from compressor.model import Masks, PrunableGroup, shrink
from compressor.model.outputs import raw_output
from compressor.prune import shown_maps
from compressor.testing import example_masks, tiny_batch, tiny_model
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.families.modernbert import ModernBert
from compressor_plugins.families.mpnet import MPNet
from tests.plugins.sessions import FAMILIES


def maps_of(model: Any, family: Any, batch: Any, **options: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    groups = family.groups(model)
    show = lambda group, maps: found.update({group.name: maps})  # noqa: E731 - a callback
    with torch.no_grad(), shown_maps(model, groups, batch["attention_mask"], show, **options):
        raw_output(model, batch)
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_maps_are_those_that_eager_attention_gives(model_type: str, attention: str):
    if (model_type, attention) == ("electra", "sdpa") and version("transformers").startswith("4."):
        return  # has no sdpa there
    batch = tiny_batch(labels=False)
    model: Any = tiny_model(model_type, attention=attention)
    eager: Any = tiny_model(model_type, attention="eager")
    with torch.no_grad():
        expected = eager(**batch, output_attentions=True).attentions
    found = maps_of(model, FAMILIES[model_type], batch)
    assert len(found) == len(expected) == 3
    real = batch["attention_mask"].bool()
    for maps, whole in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(maps.transpose(1, 2)[real], whole.transpose(1, 2)[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_pruned_model_shows_the_maps_of_the_heads_that_are_left(model_type: str):
    batch, family = tiny_batch(labels=False), FAMILIES[model_type]
    model = tiny_model(model_type)
    groups = family.groups(model)
    masks = example_masks(groups)["ragged"]
    heads = Masks({group.name: masks.keep[group.name] for group in groups if group.kind == "heads"})
    found = maps_of(shrink(model, family, heads), family, batch)
    kept = {name: int(mask.sum()) for name, mask in heads.keep.items()}
    assert {name: maps.shape[1] for name, maps in found.items()} == {name: left for name, left in kept.items() if left}
    first = groups[0].name
    torch.testing.assert_close(found[first], maps_of(model, family, batch)[first][:, heads.keep[first]])


def test_some_rows_alone_can_be_shown():
    batch, model, family = tiny_batch(labels=False), tiny_model(), FAMILIES["bert"]
    whole, part = maps_of(model, family, batch), maps_of(model, family, batch, rows=2)
    assert all(torch.equal(maps, whole[name][:2]) for name, maps in part.items())


def test_one_layer_is_shown_before_the_next_is_run():
    batch, model, family, order = tiny_batch(labels=False), tiny_model(), FAMILIES["bert"], []
    groups = family.groups(model)
    for index, layer in enumerate(model.get_submodule("bert.encoder.layer").children()):
        layer.register_forward_pre_hook(lambda *_, index=index: order.append(index))

    def show(group: PrunableGroup, _: Tensor) -> None:
        order.append(group.name)

    with torch.no_grad(), shown_maps(model, groups, batch["attention_mask"], show):
        raw_output(model, batch)
    heads = [group.name for group in groups if group.kind == "heads"]
    assert order == [part for pair in enumerate(heads) for part in pair]


def test_nothing_is_left_on_the_model():
    batch, model, family = tiny_batch(labels=False), tiny_model(), FAMILIES["bert"]
    maps_of(model, family, batch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_attends_otherwise_is_refused():
    batch, model, family = tiny_batch(labels=False), tiny_model(), FAMILIES["bert"]
    query = model.get_submodule("bert.encoder.layer.1.attention.self.query")
    key = model.get_submodule("bert.encoder.layer.1.attention.self.key")
    query.register_forward_hook(lambda _, __, output: output.roll(1, dims=1))  # as if positions turned queries
    key.register_forward_hook(lambda _, __, output: 3 * output)
    maps_of(model, family, batch)  # these hooks came first, so what is shown is what the model uses
    rotated = tiny_model()
    consumer = rotated.get_submodule("bert.encoder.layer.1.attention.output.dense")
    consumer.register_forward_pre_hook(lambda _, inputs: (inputs[0].roll(1, dims=1),))
    with pytest.raises(CompressorError, match=r"encoder\.layer\.1\.attention: attention maps cannot be read"):
        maps_of(rotated, family, batch)


@pytest.mark.parametrize(
    ("family", "how"), [(ModernBert(), "rotary"), (DebertaV2(), "relative positions"), (MPNet(), "a bias per head")]
)
def test_attention_with_positions_in_it_is_refused_by_name(family: Any, how: str):
    (model_type,) = family.model_types
    with pytest.raises(
        InputError, match=f"attention maps of {model_type} cannot be read .* attends with {how}"
    ) as refused:
        maps_of(tiny_model(model_type), family, tiny_batch(labels=False))
    assert "reads no maps" in str(refused.value.hint)
