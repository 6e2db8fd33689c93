"""Masks of single weights through the steps of a run: applied, merged, followed, kept, restored, counted in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.model import Masks, WeightFilter, filtered_weights, shrink
from compressor.model.artifact import stored_weights
from compressor.model.checkpoint import fingerprint
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, Registry
from compressor.recipe.plan import Step
from compressor.run import steps
from compressor.run.calls import NamedFamily
from compressor.run.kept import Kept
from compressor.run.pipeline import Finished
from compressor.run.pruning import applied
from compressor.run.session import Session
from compressor.verify.report import model_card
from tests.plugins.sessions import labelled
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

REGISTRY = Registry.load()
FFN = "bert.encoder.layer.0.output.dense.weight"


def step(index: int, name: str, **options: Any) -> Step:
    cls = REGISTRY.get("method", name)
    return Step(index, "prune", cls.model_validate(options, context={"registry": REGISTRY}))


def half(index: int = 0, **options: Any) -> Step:
    return step(index, "one_shot", **{"pattern": "2:4", "target": {"sparsity": 0.5}, **options})


def session_at(path: Path, model_type: str = "bert") -> Session:
    return replace(labelled(model_type, count=12), run_dir=path)


def zeros_of(model: nn.Module) -> Masks:
    return Masks({name: weight.detach() != 0 for name, weight in filtered_weights(model, WeightFilter()).items()})


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_a_step_zeroes_what_its_masks_remove_and_a_resumed_run_knows_them(model_type: str, tmp_path: Path):
    session = session_at(tmp_path, model_type)
    outcome = steps.compressor_run_step(half(), session)
    assert session.weight_masks.sparsity == 0.5
    assert all(
        torch.equal(zeros_of(session.model).keep[name], mask) for name, mask in session.weight_masks.keep.items()
    )
    assert outcome.metrics["sparsity"]["pruned_layers"]["ratio"] == 0.5
    again = session_at(tmp_path, model_type)
    steps.restore(half(), again, seconds=0.0, metrics=outcome.metrics)
    assert again.weight_masks == session.weight_masks
    assert fingerprint(again.model) == fingerprint(session.model)


def test_masks_of_two_steps_add_up_and_new_weights_do_not_revive_old_zeros(tmp_path: Path):
    session = session_at(tmp_path)
    steps.compressor_run_step(half(op_names=["output"]), session)
    first = session.weight_masks
    steps.compressor_run_step(step(1, "sparsegpt", pattern="1x1", target={"sparsity": 0.25}), session)
    second = session.weight_masks
    assert second.keep.keys() > first.keep.keys()
    for name, mask in first.keep.items():
        assert not bool((second.keep[name] & ~mask).any())
    for name, mask in second.keep.items():
        assert not session.model.get_parameter(name)[~mask].any()


def test_a_structured_step_behind_cuts_the_masks_and_keeps_the_zeros(tmp_path: Path):
    session = session_at(tmp_path)
    steps.compressor_run_step(half(), session)
    steps.compressor_run_step(step(1, "fisher", target={"macs": 0.5}), session)
    assert any(group.units < (4 if group.kind == "heads" else 48) for group in session.groups)
    assert session.weight_masks.keep
    for name, mask in session.weight_masks.keep.items():
        weight = session.model.get_parameter(name)
        assert weight.shape == mask.shape
        assert torch.equal(weight != 0, mask), name  # fisher re-fits output matrices; what was zero is zero still


def test_dropped_layers_take_their_masks_along(tmp_path: Path):
    session = session_at(tmp_path)
    steps.compressor_run_step(half(op_names=[r"layer\.[02]"]), session)
    above = session.weight_masks.keep["bert.encoder.layer.2.output.dense.weight"]
    done = applied(session, NamedFamily(session.family, "test"), Pruned(Masks({}), dropped_layers=(0,)))
    names = {name.split("layer.")[1][0] for name in done.weight_masks.keep}
    assert names == {"1"}
    assert torch.equal(done.weight_masks.keep["bert.encoder.layer.1.output.dense.weight"], above)


@pytest.mark.parametrize("pattern", ["channelx1", "1xchannel"])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_channels_that_become_empty_are_removed(pattern: str, model_type: str, tmp_path: Path):
    session = session_at(tmp_path, model_type)
    dense = session.model
    names = {"channelx1": r"(?<!attention\.)output\.dense|lin2", "1xchannel": r"intermediate|lin1"}
    component = half(pattern=pattern, op_names=[names[pattern]])
    pruned = component.component.prune(session)  # type: ignore[attr-defined]
    zeroed = shrink(dense, session.family, Masks({}))
    for name, mask in pruned.masks.keep.items():
        with torch.no_grad():
            zeroed.get_parameter(name).mul_(mask)
    outcome = steps.compressor_run_step(component, session)
    assert [group.units for group in session.groups if group.kind == "ffn_neurons"] == [24, 24, 24]
    assert set(outcome.metrics["emptied_units"].values()) == {24}
    assert all(bool(mask.all()) for mask in session.weight_masks.keep.values())
    for batch in session.calibration.batches(session.device):
        with torch.no_grad():
            torch.testing.assert_close(raw_output(session.model, batch), raw_output(zeroed, batch), rtol=0, atol=1e-5)
    assert outcome.metrics["parameters"]["compressed"] < outcome.metrics["parameters"]["dense"]


def test_a_grid_keeps_its_empty_columns(tmp_path: Path):
    session = session_at(tmp_path)
    with torch.no_grad():
        for column in (0, 1):
            session.model.get_parameter(FFN)[:, column] *= 1e-6
    steps.compressor_run_step(half(), session)
    assert not session.weight_masks.keep[FFN][:, :2].any()
    assert [group.units for group in session.groups] == [4, 48] * 3


def test_later_steps_leave_an_earlier_grid_alone(tmp_path: Path):
    session = session_at(tmp_path)
    with torch.no_grad():
        session.model.get_parameter(FFN)[:, :2] *= 1e-6
    outcome = steps.compressor_run_step(half(op_names=[r"layer\.0\.output"]), session)
    later = Pruned(half(1, pattern="1x1", op_names=["query"]).component.prune(session).masks, dropped_layers=(1,))  # type: ignore[attr-defined]
    again = session_at(tmp_path)
    steps.restore(half(), again, seconds=0.0, metrics=outcome.metrics)
    for each in (session, again):
        done = applied(each, NamedFamily(each.family, "test"), later)
        assert done.aligned == {FFN}
        assert done.model.get_parameter(FFN).shape == (32, 48)


def test_masks_that_fit_nothing_are_refused(tmp_path: Path):
    session = session_at(tmp_path)
    with pytest.raises(CompressorError, match="no such group or parameter"):
        applied(session, NamedFamily(session.family, "test"), Pruned(Masks({"x": torch.ones(1, dtype=torch.bool)})))


def test_a_kept_pruning_holds_masks_of_weights(tmp_path: Path):
    pruned = half().component.prune(session_at(tmp_path))  # type: ignore[attr-defined]
    Kept(tmp_path / "kept").save(pruned, fingerprint="x")
    loaded = Kept(tmp_path / "kept").load("x")
    assert loaded is not None
    assert loaded.masks == pruned.masks
    assert loaded.aligned == pruned.aligned


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("zeros")
    prune = {"method": "one_shot", "pattern": "2:4", "target": {"sparsity": 0.5}}
    recipe = toy_recipe(directory, steps=[{"prune": prune}, {"export": {"format": "onnx"}}])
    return run_recipe(recipe, directory / "out")


def test_every_run_of_four_inputs_in_the_file_has_exactly_two_zeros(finished: Finished):
    stored = list(stored_weights(finished.directory / "model.onnx"))
    inside, outside = stored[:18], stored[18:]
    assert all(weight.two_of_four for weight in inside)
    assert [weight.values.shape for weight in outside] == [(32, 32), (2, 32)]  # pooler and classifier
    assert not any(weight.zeros for weight in outside)


def test_the_report_counts_zeros_in_the_files_and_says_what_they_are_not_good_for(finished: Finished):
    report = finished.report
    elements = 3 * (4 * 32 * 32 + 2 * 32 * 48)
    files = report["sparsity"]["files"]
    whole = elements + 32 * 32 + 2 * 32
    expected = {
        "weights": 20,
        "elements": whole,
        "zeros": elements // 2,
        "ratio": elements / 2 / whole,
        "two_of_four": 18,
    }
    assert files["model"] == expected
    assert files["dense"]["zeros"] == 0
    masks = report["sparsity"]["masks"]
    assert masks["pruned_layers"]["ratio"] == 0.5
    assert masks["linear_and_conv"] == {"removed": elements // 2, "of": whole, "ratio": elements / 2 / whole}
    card = model_card(report)
    assert "| masks, of all Linear and Conv weights |" in card
    assert "Exactly 2 of every 4 inputs are zero in 18 weights" in card
    assert "measured on its CPU provider: 1.00x" in card
