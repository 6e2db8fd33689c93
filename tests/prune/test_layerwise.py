from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model import Masks, masked, shrink
from compressor.model.outputs import raw_output
from compressor.prune import layer_names, record, replay, replay_until, resumed, watched
from compressor.prune.layerwise import stopped
from compressor.testing import tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.families.modernbert import ModernBert
from compressor_plugins.families.mpnet import MPNet

FAMILIES: dict[str, Any] = {"bert": Bert(), "roberta": Bert(), "electra": Bert(), "distilbert": DistilBert()}
TABLES: dict[str, Any] = {**FAMILIES, "deberta-v2": DebertaV2(), "modernbert": ModernBert(), "mpnet": MPNet()}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_replayed_layers_equal_the_models_own_forward(model_type: str) -> None:
    model, batch = tiny_model(model_type, num_labels=None), tiny_batch(labels=False)
    layers = layer_names(FAMILIES[model_type].groups(model))
    assert len(layers) == 3
    hidden, calls = record(model, layers, batch)
    with torch.no_grad():
        expected = model(**batch, output_hidden_states=True).hidden_states
        assert torch.equal(hidden, expected[0])
        for index, layer in enumerate(layers):
            hidden = replay(model, layer, calls[layer], hidden)
            torch.testing.assert_close(hidden, expected[index + 1])


def test_a_pruned_copy_replays_what_the_dense_model_recorded() -> None:
    model, batch = tiny_model(num_labels=None), tiny_batch(labels=False)
    groups = Bert().groups(model)
    masks = Masks({group.name: torch.arange(group.units) % 3 > 0 for group in groups})
    pruned = shrink(model, Bert(), masks)
    hidden, calls = record(model, layer_names(groups), batch)
    with torch.no_grad():
        for layer in layer_names(groups):
            hidden = replay(pruned, layer, calls[layer], hidden)
        torch.testing.assert_close(hidden, pruned(**batch).last_hidden_state)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "deberta-v2", "modernbert", "mpnet"])
@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
@pytest.mark.parametrize("emptied", [False, True])
def test_watched_sublayers_are_what_layer_norm_reads(*, model_type: str, kind: str, emptied: bool) -> None:
    model, family = tiny_model(model_type, num_hidden_layers=1), TABLES[model_type]
    group = next(group for group in family.groups(model) if group.kind == kind)
    if emptied:
        model = shrink(model, family, Masks({group.name: torch.zeros(group.units, dtype=torch.bool)}))
        group = next(group for group in family.groups(model) if group.kind == kind)
    norms = {
        "bert": {"heads": "attention.output.LayerNorm", "ffn_neurons": "output.LayerNorm"},
        "distilbert": {"heads": "sa_layer_norm", "ffn_neurons": "output_layer_norm"},
        "deberta-v2": {"heads": "attention.output.LayerNorm", "ffn_neurons": "output.LayerNorm"},
        "mpnet": {"heads": "attention.LayerNorm", "ffn_neurons": "output.LayerNorm"},
        "modernbert": {"heads": "mlp_norm", "ffn_neurons": "final_norm"},
    }
    read: list[Tensor] = []
    name = norms[model_type][kind]
    norm = model.get_submodule(f"model.{name}" if name == "final_norm" else f"{group.layer}.{name}")
    norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad(), watched(model, [group]) as seen:
        model(**tiny_batch(labels=False))
    torch.testing.assert_close(seen[group.name].before_norm, read[0])


def test_watched_activations_show_masks_that_were_entered_before() -> None:
    model = tiny_model(num_hidden_layers=1)
    group = Bert().groups(model)[1]
    keep = {group.name: torch.arange(48) > 5}
    with torch.no_grad(), masked(model, [group], keep), watched(model, [group]) as seen:
        model(**tiny_batch(labels=False))
    assert not seen[group.name].activations[..., :6].any()
    assert seen[group.name].activations[..., 6:].all()


@pytest.mark.parametrize("model_type", TABLES)
def test_a_resumed_forward_equals_the_whole_one(model_type: str) -> None:
    model, batch = tiny_model(model_type), tiny_batch(labels=False)
    groups = TABLES[model_type].groups(model)
    layers = layer_names(groups)
    masks = Masks({groups[1].name: torch.arange(48) < 0, groups[2].name: torch.arange(4) < 1})
    pruned = shrink(model, TABLES[model_type], masks)
    hidden, calls = record(model, layers, batch)
    with torch.no_grad():
        expected = raw_output(pruned, batch)
        for layer in layers:
            with resumed(pruned, calls, layer, hidden):
                torch.testing.assert_close(raw_output(pruned, batch), expected)
            hidden = replay(pruned, layer, calls[layer], hidden)
        torch.testing.assert_close(raw_output(pruned, batch), expected)


def test_a_resumed_forward_computes_no_layer_below_and_puts_them_back() -> None:
    model, batch = tiny_model(), tiny_batch(labels=False)
    layers = layer_names(Bert().groups(model))
    before = [model.get_submodule(layer) for layer in layers]
    hidden, calls = record(model, layers, batch)
    ran: list[int] = []
    for index, layer in enumerate(before):
        layer.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    with torch.no_grad(), resumed(model, calls, layers[1], hidden):
        raw_output(model, batch)
    assert ran == [1, 2]
    assert [model.get_submodule(layer) for layer in layers] == before


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
def test_replaying_up_to_a_consumer_sees_the_same_and_runs_no_more(model_type: str, kind: str) -> None:
    model, batch = tiny_model(model_type), tiny_batch(labels=False)
    groups = FAMILIES[model_type].groups(model)
    group = next(group for group in groups if group.kind == kind)
    other = next(group for group in groups if group.kind == "ffn_neurons")
    hidden, calls = record(model, layer_names(groups), batch)
    ran: list[str] = []
    model.get_submodule(other.consumer.module).register_forward_hook(lambda *_: ran.append(kind))
    with torch.no_grad(), watched(model, [group]) as whole:
        replay(model, group.layer, calls[group.layer], hidden)
    with torch.no_grad(), watched(model, [group]) as part:
        replay_until(model, group, calls[group.layer], hidden)
    assert torch.equal(part[group.name].before_norm, whole[group.name].before_norm)
    assert len(ran) == (1 if kind == "heads" else 2)


@pytest.mark.parametrize("before", [False, True])
def test_a_stopped_pass_runs_nothing_behind_the_module(*, before: bool) -> None:
    model, batch = tiny_model(), tiny_batch(labels=False)
    ran: list[str] = []
    for name in ("encoder.layer.0", "encoder.layer.1", "encoder.layer.2"):
        layer: Any = model.get_submodule(f"bert.{name}")
        layer.attention.register_forward_pre_hook(lambda *_, name=name: ran.append(name[-1]))
        layer.output.register_forward_hook(lambda *_, name=name: ran.append(f"{name[-1]} done"))
    with torch.no_grad(), stopped(model.get_submodule("bert.encoder.layer.1.output"), before=before):
        raw_output(model, batch)
        pytest.fail("the pass went on")
    assert ran == (["0", "0 done", "1"] if before else ["0", "0 done", "1", "1 done"])
    ran.clear()
    with torch.no_grad():
        raw_output(model, batch)
    assert len(ran) == 6


def test_other_errors_pass_through_where_a_pass_is_to_stop() -> None:
    model = tiny_model()
    with pytest.raises(ZeroDivisionError), stopped(model):
        raise ZeroDivisionError
    with torch.no_grad():
        assert raw_output(model, tiny_batch(labels=False)).isfinite().all()


class Odd(nn.Module):
    """Calls one layer twice and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(2, 2)
        self.never = nn.Linear(2, 2)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.twice(self.twice(input_ids))}


@pytest.mark.parametrize("layer", ["twice", "never"])
def test_layers_that_are_not_called_once_are_an_error(layer: str) -> None:
    with pytest.raises(CompressorError, match=layer):
        record(Odd(), [layer], {"input_ids": torch.ones(1, 2)})
