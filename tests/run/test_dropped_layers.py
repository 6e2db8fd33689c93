"""Whole runs that drop layers: what is left behind, what resumes, what a later step or run makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForSequenceClassification

import compressor
from compressor.cli import main
from compressor.errors import InputError, PluginError
from compressor.model import depth
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, PruningMethod, Registry, hookimpl
from compressor.recipe.loader import load_recipe
from compressor.recipe.sweep import compile_sweep
from compressor.run.pipeline import Conditions, Finished, run
from compressor.run.sweep import run_sweep
from compressor.testing import tiny_batch
from tests.run.conftest import run_recipe
from tests.run.test_pipeline import Interrupting, with_plugin
from tests.toys import toy_recipe

DROP = {"prune": {"method": "drop-layers", "target": {"layers": 0.7}}}
FISHER = {"prune": {"method": "fisher", "target": {"macs": 0.4}}}
VERIFY = {"verify": {"sequence": 16, "rounds": 3, "gates": {"macs": 0.67}}}


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("shallow")
    return run_recipe(toy_recipe(directory, steps=[DROP, {"export": {}}, VERIFY]), directory / "out")


def config(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return raw_output(model, tiny_batch(lengths=(9, 4, 1), labels=False))


def test_layers_are_gone_and_the_proof_is_in_the_report(shallow: Finished):
    metrics = shallow.report["steps"][0]["metrics"]
    assert config(shallow.directory)["num_hidden_layers"] == len(metrics["layers_kept"]) == 2
    assert config(shallow.directory)["kept_layers"] == metrics["layers_kept"]
    assert 0 <= metrics["removal_max_abs_diff"] < 1e-4
    macs = shallow.report["model"]["encoder_macs"]
    assert macs["compressed"] / macs["dense"] == pytest.approx(2 / 3) == pytest.approx(metrics["macs_kept"])
    assert shallow.passed
    layers = shallow.report["layers"]
    assert [one["layer"] for one in layers if not one["dropped"]] == metrics["layers_kept"]
    assert [one["heads"]["kept"] for one in layers if one["dropped"]] == [0]


def test_transformers_compressor_and_onnxruntime_give_the_same(shallow: Finished):
    plain = AutoModelForSequenceClassification.from_pretrained(shallow.directory).eval()
    assert torch.equal(logits(plain), logits(compressor.load(shallow.directory)))
    session = onnxruntime.InferenceSession(str(shallow.directory / "model.onnx"))
    batch = tiny_batch(lengths=(9, 4, 1), labels=False)
    token_types = torch.zeros_like(batch["input_ids"])  # transformers 4.57's tokenizer gives them, 5's does not
    feed = {given.name: batch.get(given.name, token_types).numpy() for given in session.get_inputs()}
    np.testing.assert_allclose(session.run(None, feed)[0], logits(plain), atol=1e-5)


def test_masks_of_a_lost_layer_are_false(shallow: Finished):
    kept = config(shallow.directory)["kept_layers"]
    masks = Masks.load(shallow.directory / "stages/01-prune/masks.safetensors")
    assert len(masks.keep) == 6
    for name, keep in masks.keep.items():
        assert keep.tolist() == [int(name.split(".")[2]) in kept] * len(keep)


def test_inspect_says_which_layers_are_left(shallow: Finished, finished: Finished):
    text = CliRunner().invoke(main, ["inspect", str(shallow.directory)], catch_exceptions=False).output
    assert "dense layer" in text
    found = CliRunner().invoke(main, ["inspect", str(shallow.directory), "--json"], catch_exceptions=False).output
    found = json.loads(found)
    assert found["kept_layers"] == config(shallow.directory)["kept_layers"]
    assert [layer["layer"] for layer in found["layers"]] == [0, 1]
    text = CliRunner().invoke(main, ["inspect", str(finished.directory)], catch_exceptions=False).output
    assert "dense layer" not in text


def test_verify_again_reads_the_run(shallow: Finished):
    found = CliRunner().invoke(main, ["verify", str(shallow.directory), "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output


def test_points_of_a_sweep_are_what_each_target_alone_gives(tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[{"prune": {"method": "drop-layers", "target": {"layers": [0.34, 1, 0.7]}}}])
    registry = Registry.load()
    sweep = compile_sweep(load_recipe(recipe), registry)
    run_sweep(sweep, tmp_path / "family", Conditions(registry, torch.device("cpu")))
    left = []
    for point in sweep.points:
        swept = tmp_path / "family" / point.name
        alone = run(point.plan, tmp_path / point.name, Conditions(registry, torch.device("cpu"))).directory
        for name in ("config.json", "model.safetensors", "stages/01-prune/masks.safetensors"):
            assert (swept / name).read_bytes() == (alone / name).read_bytes(), (point.name, name)
        left.append(config(swept)["num_hidden_layers"])
    assert left == [1, 3, 2]


def test_a_killed_run_resumes_to_the_same_result(shallow: Finished, tmp_path: Path):
    recipe = shallow.directory.parent / "recipe.yaml"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=with_plugin(Interrupting("export")))
    second = Interrupting("nothing")
    resumed = run_recipe(recipe, tmp_path / "out", registry=with_plugin(second))
    assert "prune" not in second.calls
    for name in ("model.onnx", "model.safetensors", "config.json"):
        assert (resumed.directory / name).read_bytes() == (shallow.directory / name).read_bytes(), name
    assert resumed.report["quality"] == shallow.report["quality"]


@pytest.mark.parametrize("model_type", ["roberta", "distilbert"])
def test_width_after_depth_in_one_run(model_type: str, tmp_path: Path):
    """Killed between the two steps, so that the second starts from what the first one left on the disk."""
    recipe = toy_recipe(tmp_path, model_type=model_type, steps=[DROP, FISHER])

    class Second:
        seen = 0

        @hookimpl(wrapper=True)
        def compressor_run_step(self, step: Any) -> Any:
            if step.index == 1:
                raise KeyboardInterrupt
            return (yield)

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=with_plugin(Second()))
    result = run_recipe(recipe, tmp_path / "out")
    macs = result.report["model"]["encoder_macs"]
    assert 0.3 * macs["dense"] < macs["compressed"] <= 0.4 * macs["dense"]
    kept = config(result.directory)["kept_layers"]
    assert len(kept) == 2
    masks = Masks.load(result.directory / "stages/02-prune/masks.safetensors").keep
    shapes = config(result.directory)["pruned_shapes"]
    for name, keep in masks.items():
        kind = "heads" if name.endswith("attention") else "ffn_neurons"
        layer = int(name.split(".")[2])
        ids = shapes[f"kept_{kind}"][kept.index(layer)] if layer in kept else []
        assert keep.nonzero().flatten().tolist() == ids, name
    model: Any = compressor.load(result.directory)
    assert sum(p.numel() for p in model.parameters()) == result.report["model"]["parameters"]["compressed"]


def test_a_later_run_starts_from_it(shallow: Finished, tmp_path: Path):
    steps = [FISHER, {"prune": {"method": "drop-layers", "target": {"layers": 0.5}}}]
    result = run_recipe(toy_recipe(tmp_path, steps=steps, model=str(shallow.directory)), tmp_path / "out")
    before, now = config(shallow.directory), config(result.directory)
    assert len(now["kept_layers"]) == now["num_hidden_layers"] == 1
    assert set(now["kept_layers"]) < set(before["kept_layers"])
    macs = result.report["model"]["encoder_macs"]
    assert macs["dense"] == pytest.approx(shallow.report["model"]["encoder_macs"]["compressed"], rel=0.02)
    masks = Masks.load(result.directory / "stages/02-prune/masks.safetensors").keep
    assert sum(int(keep.any()) for keep in masks.values()) <= 2 < len(masks) == 4
    assert torch.isfinite(logits(compressor.load(result.directory))).all()


def test_layers_that_are_removed_wrongly_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = depth.drop
    monkeypatch.setattr(depth, "drop", lambda model, groups, layers: right(model, groups, [(layers[0] + 1) % 3]))
    with pytest.raises(PluginError, match="removing the masked units and the dropped layers changed"):
        run_recipe(toy_recipe(tmp_path, steps=[DROP]), tmp_path / "out")


def test_dropping_all_layers_is_refused(tmp_path: Path):
    class Everything(PruningMethod):
        name = "everything"

        def prune(self, session: Any) -> Pruned:
            return Pruned(Masks({}), dropped_layers=tuple({group.index for group in session.groups}))

    class Provider:
        @hookimpl
        def compressor_components(self) -> Any:
            return [Everything]

    registry: Registry = with_plugin(Provider())
    with pytest.raises(PluginError, match=r"'everything'.*expected at least one of 3 layers to stay"):
        run_recipe(
            toy_recipe(tmp_path, steps=[{"prune": {"method": "everything"}}]), tmp_path / "out", registry=registry
        )
    low = {"prune": {"method": "drop-layers", "target": {"layers": 0.3}}}
    with pytest.raises(InputError, match=r"keeps no layer.*lowest reachable: 0\.334"):
        run_recipe(toy_recipe(tmp_path, steps=[low]), tmp_path / "low")
