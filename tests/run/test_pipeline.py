"""The whole pipeline on toy models: what is left behind, what resumes, what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import compressor
from compressor.errors import CompressorError, InputError, PluginError, SetupError
from compressor.model import surgery
from compressor.model.artifact import initializer_elements
from compressor.plugin import Pruned, PruningMethod, Registry, hookimpl
from compressor.recipe.lock import read_lock
from compressor.run.pipeline import Finished
from compressor.testing import tiny_batch
from tests import lookup
from tests.faults import Operation, watch
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_finished_run_leaves_what_the_house_says(finished: Finished):
    assert {
        "model.onnx",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.yaml",
        "recipe.lock.yaml",
        "report.json",
        "report.html",
        "README.md",
        "logs/run.log",
        "stages/01-prune/stage.json",
        "stages/01-prune/masks.safetensors",
        "stages/02-export/stage.json",
        "stages/02-export/dense.onnx",
        "stages/03-verify/stage.json",
    } <= set(files(finished.directory))
    assert [path.name for path in finished.directory.parent.glob("out*")] == ["out"]


def test_the_report_says_what_is_left_of_each_layer(finished: Finished):
    shapes = json.loads((finished.directory / "config.json").read_text())["pruned_shapes"]
    layers = finished.report["layers"]
    assert [one["layer"] for one in layers] == list(range(len(layers)))
    for kind in ("heads", "ffn_neurons"):
        assert [one[kind]["kept"] for one in layers] == shapes[kind]
        assert sum(one[kind]["of"] for one in layers) > sum(shapes[kind])
    assert not any(one["dropped"] for one in layers)
    assert "What is left of each layer" in (finished.directory / "report.html").read_text()


def test_units_are_gone_from_the_file(finished: Finished):
    dense = initializer_elements(finished.directory / "stages/02-export/dense.onnx")
    assert initializer_elements(finished.directory / "model.onnx") < dense
    sizes = finished.report["model"]["parameters"]
    assert sizes["compressed"] < sizes["dense"]


def test_the_mac_budget_is_kept(finished: Finished):
    macs = finished.report["model"]["encoder_macs"]
    assert macs["compressed"] <= 0.5 * macs["dense"]
    assert finished.passed


def test_load_gives_what_onnxruntime_computes(finished: Finished):
    model: Any = compressor.load(finished.directory)
    batch = tiny_batch(lengths=(9, 4, 1), labels=False)
    with torch.no_grad():
        expected = model(**batch).logits.numpy()
    session = onnxruntime.InferenceSession(str(finished.directory / "model.onnx"))
    token_types = torch.zeros_like(batch["input_ids"])  # transformers 4.57's tokenizer gives them, 5's does not
    feed = {given.name: batch.get(given.name, token_types).numpy() for given in session.get_inputs()}
    found = session.run(None, feed)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_plain_transformers_refuses_the_pruned_weights(finished: Finished):
    with pytest.raises(RuntimeError):
        AutoModelForSequenceClassification.from_pretrained(finished.directory)


def test_the_tokenizer_is_copied_as_it_was(finished: Finished, toy: Path):
    before, after = (
        (place / "tokenizer.json").read_bytes() for place in (toy.parent / "checkpoint", finished.directory)
    )
    assert before == after
    assert AutoTokenizer.from_pretrained(finished.directory)("the cat")["input_ids"]


def test_the_lock_file_compiles_to_the_same_digest(finished: Finished, tmp_path: Path):
    lock = yaml.safe_load((finished.directory / "recipe.lock.yaml").read_text())
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(lock["recipe"]))
    from compressor.recipe.loader import load_recipe
    from compressor.recipe.plan import compile_plan

    assert compile_plan(load_recipe(again), Registry.load()).digest == lock["digest"]


def test_no_exported_file_names_a_path(finished: Finished):
    for name in ("model.onnx", "stages/02-export/dense.onnx"):
        assert str(Path.cwd()).encode() not in (finished.directory / name).read_bytes()


def test_an_existing_directory_is_not_overwritten(finished: Finished, toy: Path):
    before = files(finished.directory)
    with pytest.raises(InputError, match="exists already"):
        run_recipe(toy, finished.directory)
    assert files(finished.directory) == before


@pytest.mark.usefixtures("own_graphs")
def test_a_replay_gives_the_same_bytes_and_fresh_replaces_the_directory(finished: Finished, toy: Path, tmp_path: Path):
    out = tmp_path / "elsewhere"
    out.mkdir()
    (out / "recipe.lock.yaml").write_text("of an older run")
    (out / "older.txt").write_text("of an older run")
    again = run_recipe(toy, out, fresh=True, locked=read_lock(finished.directory / "recipe.lock.yaml"))
    assert again.reproduced
    assert again.report["replay"]["outputs"].keys() == {"model.onnx", "model.safetensors"}
    for name in ("model.onnx", "model.safetensors", "config.json", "stages/01-prune/masks.safetensors"):
        assert (again.directory / name).read_bytes() == (finished.directory / name).read_bytes(), name
    assert not (out / "older.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


class Interrupting:
    """A plugin that stops the run before one verb, as a kill would."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.calls: list[str] = []

    @hookimpl(wrapper=True)
    def compressor_run_step(self, step: Any) -> Any:
        self.calls.append(step.verb)
        if step.verb == self.verb:
            raise KeyboardInterrupt
        return (yield)


def with_plugin(plugin: object) -> Registry:
    registry = Registry.load()
    registry.register(plugin, "test")
    return registry


@pytest.mark.parametrize("verb", ["export", "verify"])
def test_an_interrupted_run_resumes_to_the_same_result(verb: str, finished: Finished, toy: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(toy, out, registry=with_plugin(Interrupting(verb)))
    assert not out.exists()
    second = Interrupting("nothing")
    resumed = run_recipe(toy, out, registry=with_plugin(second))
    verbs = ["prune", "export", "verify"]
    assert second.calls == verbs[verbs.index(verb) :]
    for name in ("model.onnx", "model.safetensors", "config.json"):
        assert (resumed.directory / name).read_bytes() == (finished.directory / name).read_bytes(), name
    assert resumed.report["quality"] == finished.report["quality"]
    assert resumed.report["model"] == finished.report["model"]


def test_other_weights_undo_finished_stages(tmp_path: Path):
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": {}}]
    recipe = toy_recipe(tmp_path, steps=steps)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=with_plugin(Interrupting("export")))
    from compressor.testing import tiny_checkpoint

    tiny_checkpoint(tmp_path / "checkpoint", seed=1)
    second = Interrupting("export")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=with_plugin(second))
    assert second.calls == ["prune", "export"]


class Counting:
    """A plugin that stops the run before the step of the given number."""

    def __init__(self, stop: int = 9) -> None:
        self.stop = stop
        self.steps: list[str] = []

    @hookimpl(wrapper=True)
    def compressor_run_step(self, step: Any) -> Any:
        if step.index == self.stop:
            raise KeyboardInterrupt
        self.steps.append(step.slug)
        return (yield)


def twice(*macs: float) -> list[Any]:
    return [{"prune": {"method": "fisher", "target": {"macs": target}}} for target in macs]


def test_a_changed_last_step_does_not_redo_the_first_ones(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(toy_recipe(tmp_path, steps=twice(0.8, 0.6, 0.5)), out, registry=with_plugin(Counting(2)))
    (begun,) = tmp_path.glob("out.partial-*")
    changed, second, said = toy_recipe(tmp_path, steps=twice(0.8, 0.6, 0.4)), Counting(), []
    result = run_recipe(changed, out, registry=with_plugin(second), announce=said.append)
    assert second.steps == ["03-prune"]
    assert f"go on from {begun.name}, whose first steps are the same" in said
    assert [line.partition(" (")[0] for line in said if "before" in line] == [
        "01-prune was finished before",
        "02-prune was finished before",
    ]
    assert (begun / "stages" / "02-prune" / "stage.json").is_file()
    alone = run_recipe(changed, tmp_path / "alone")
    for name in ("model.safetensors", "config.json", "stages/02-prune/masks.safetensors"):
        assert (result.directory / name).read_bytes() == (alone.directory / name).read_bytes(), name
    kept = files(begun)
    first = Counting()
    run_recipe(toy_recipe(tmp_path, steps=twice(0.7, 0.6, 0.5)), out, registry=with_plugin(first), fresh=True)
    assert first.steps == ["01-prune", "02-prune", "03-prune"]
    assert files(begun) == kept


def test_a_changed_first_step_redoes_all(tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(toy_recipe(tmp_path, steps=twice(0.8, 0.6)), out, registry=with_plugin(Counting(1)))
    second = Counting()
    run_recipe(toy_recipe(tmp_path, steps=twice(0.7, 0.6)), out, registry=with_plugin(second))
    assert second.steps == ["01-prune", "02-prune"]


def test_a_damaged_stage_is_done_again(tmp_path: Path):
    recipe, out = toy_recipe(tmp_path, steps=twice(0.8, 0.6)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out, registry=with_plugin(Counting(1)))
    (masks,) = tmp_path.glob("out.partial-*/stages/01-prune/masks.safetensors")
    masks.write_bytes(masks.read_bytes()[:-1])
    second, said = Counting(), []
    run_recipe(recipe, out, registry=with_plugin(second), announce=said.append)
    assert second.steps == ["01-prune", "02-prune"]
    assert "01-prune is done again: it was finished before, and is damaged: masks.safetensors" in said


FULL = (
    ("write", "out.partial-*/recipe.yaml"),
    ("write", "out.partial-*/stages/01-prune/model/model.safetensors"),
    ("sync", "out.partial-*/stages/01-prune/stage.json.tmp"),
    ("write", "out.partial-*/stages/02-export/model.onnx"),
    ("sync", "out.partial-*/stages/03-verify/stage.json.tmp"),
    ("write", "out.partial-*/model.safetensors"),
    ("write", "out.partial-*/model.onnx"),
    ("sync", "out.partial-*/recipe.lock.yaml.tmp"),
)
"""Where space is missing, one attempt after the other."""


def test_a_full_disk_is_one_error_at_every_stage_and_the_same_command_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lookup.hurry(monkeypatch)
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": "lookup"}, {"verify": {"rounds": 3}}]
    recipe, out = toy_recipe(tmp_path, steps=steps), tmp_path / "there" / "out"
    undisturbed = run_recipe(recipe, tmp_path / "undisturbed", registry=with_plugin(lookup))
    for name, pattern in FULL:

        def full(operation: Operation, name: str = name, pattern: str = pattern) -> None:
            if operation.name == name and operation.path.match(pattern):
                operation.half()
                if operation.path.suffix == ".safetensors":
                    raise SafetensorError("I/O error: No space left on device (os error 28)")
                raise OSError(errno.ENOSPC, "No space left on device", str(operation.path))

        with pytest.MonkeyPatch.context() as patch:
            watch(patch, full)
            with pytest.raises(SetupError, match=r"out\.partial-\w+: the disk is full: .*No space left") as raised:
                run_recipe(recipe, out, registry=with_plugin(lookup))
        assert raised.value.hint == "free space on this disk; the same command resumes; finished stages are kept"
        assert not out.exists()
    registry, last = with_plugin(lookup), Counting()
    registry.register(last, "counting")
    resumed = run_recipe(recipe, out, registry=registry)
    assert last.steps == []
    assert list(out.parent.iterdir()) == [out]
    names = files(undisturbed.directory).keys()
    assert files(resumed.directory).keys() == names
    for name in ("model.onnx", "model.safetensors", "config.json"):
        assert (resumed.directory / name).read_bytes() == (undisturbed.directory / name).read_bytes(), name


def test_a_disk_that_was_full_before_anything_began_leaves_nothing(toy: Path, tmp_path: Path):
    def full(operation: Operation) -> None:
        if operation.path.name == "recipe.yaml":
            raise OSError(errno.ENOSPC, "No space left on device", str(operation.path))

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, full)
        with pytest.raises(SetupError, match="the disk is full"):
            run_recipe(toy, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_on_the_same_run_is_refused(toy: Path, tmp_path: Path):
    class Second:
        @hookimpl(wrapper=True)
        def compressor_run_step(self) -> Any:
            with pytest.raises(InputError, match="another process"):
                run_recipe(toy, tmp_path / "out")
            raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        run_recipe(toy, tmp_path / "out", registry=with_plugin(Second()))


def test_a_plugin_that_raises_is_named_and_the_traceback_logged(tmp_path: Path):
    class Broken(PruningMethod):
        name = "broken"

        def prune(self, session: Any) -> Pruned:  # noqa: ARG002 - the contract's
            raise ZeroDivisionError("a bug in the plugin")

    class Provider:
        @hookimpl
        def compressor_components(self) -> Any:
            return [Broken]

    recipe = toy_recipe(tmp_path, steps=[{"prune": {"method": "broken"}}])
    with pytest.raises(PluginError, match=r"'broken'.*ZeroDivisionError: a bug in the plugin"):
        run_recipe(recipe, tmp_path / "out", registry=with_plugin(Provider()))
    (log,) = tmp_path.glob("out.partial-*/logs/run.log")
    assert "Traceback" in log.read_text()


def test_a_failed_gate_is_reported_and_the_files_are_written(tmp_path: Path):
    steps = [
        {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
        {"export": {}},
        {"verify": {"sequence": 8, "rounds": 3, "gates": {"macs": 0.01}}},
    ]
    result = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    assert not result.passed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["passed"] is False
    assert [gate["verdict"] for gate in report["gates"]] == ["fail"]
    assert "FAILED" in (tmp_path / "out" / "README.md").read_text()


def test_a_second_pruning_composes_with_the_first(tmp_path: Path):
    steps = [
        {"prune": {"method": "fisher", "target": {"macs": 0.7}}},
        {"prune": {"method": "fisher", "target": {"macs": 0.4}}},
    ]
    result = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    macs = result.report["model"]["encoder_macs"]
    assert 0.2 * macs["dense"] < macs["compressed"] <= 0.4 * macs["dense"]
    model: Any = compressor.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == result.report["model"]["parameters"]["compressed"]


def test_a_run_can_start_from_a_pruned_model(finished: Finished, tmp_path: Path):
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}]
    recipe = toy_recipe(tmp_path, steps=steps, model=str(finished.directory))
    result = run_recipe(recipe, tmp_path / "out")
    macs = result.report["model"]["encoder_macs"]
    assert macs["dense"] == pytest.approx(finished.report["model"]["encoder_macs"]["compressed"], rel=0.02)
    assert macs["compressed"] <= 0.5 * macs["dense"]
    model: Any = compressor.load(tmp_path / "out")
    first = json.loads((finished.directory / "config.json").read_text())["pruned_shapes"]["kept_ffn_neurons"]
    assert all(
        set(now) <= set(before)
        for now, before in zip(model.config.pruned_shapes["kept_ffn_neurons"], first, strict=True)
    )


def test_a_method_that_prunes_outside_its_table_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(model: Any, family: Any, masks: Any, *weights: Any, **options: Any) -> Any:
        shrunk = right(model, family, masks, *weights, **options)
        if any(not keep.all() for keep in masks.keep.values()):
            with torch.no_grad():
                list(shrunk.parameters())[-1].add_(1.0)  # the classifier's bias: no LayerNorm behind it hides a shift
        return shrunk

    right = surgery.shrink
    monkeypatch.setattr(surgery, "shrink", wrong)
    with pytest.raises(CompressorError, match="removing the masked units changed"):
        run_recipe(toy_recipe(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "electra", "distilbert"])
def test_every_family_goes_through(model_type: str, tmp_path: Path):
    result = run_recipe(toy_recipe(tmp_path, model_type=model_type), tmp_path / "out")
    assert result.passed
    model: Any = compressor.load(tmp_path / "out")
    assert model.config.model_type == model_type
