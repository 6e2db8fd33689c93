"""The step train in whole runs: what becomes of the model, what resumes, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from pydantic import Field
from safetensors.torch import load_file
from transformers.integrations import is_wandb_available

import compressor
from compressor.errors import InputError, RecipeError, SetupError
from compressor.model import Masks, fingerprint
from compressor.model.outputs import raw_output
from compressor.plugin import Component, Loss, LossRun, Pruned, PruningMethod, Registry, Training, hookimpl
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.testing import tiny_batch, tiny_checkpoint
from compressor.train import Extension, TrainingRun
from tests.run.conftest import run_recipe
from tests.toys import squad_recipe, toy_recipe, write_rows

PRUNE = {"prune": {"method": "fisher", "target": {"macs": 0.5}}}
TUNE = {"train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}}
RECOVER = {"train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "losses": ["distillation", "hidden"]}}
VERIFY = {"verify": {"sequence": 8, "rounds": 3}}


def same_outputs(one: Any, other: Any) -> bool:
    batch = tiny_batch(labels=False)
    with torch.no_grad():
        return torch.equal(raw_output(one, batch), raw_output(other, batch))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that fine-tunes, prunes and recovers."""
    place = tmp_path_factory.mktemp("both")
    return run_recipe(toy_recipe(place, steps=[TUNE, PRUNE, RECOVER, {"export": {}}, VERIFY]), place / "out")


def test_training_before_pruning_makes_the_dense_model_and_after_it_a_recovered_one(both: Any):
    tuned, pruned, recovered = (step["metrics"].get("training", step["metrics"]) for step in both.report["steps"][:3])
    assert (tuned["makes"], recovered["makes"]) == ("the dense model", "a recovered model")
    assert both.report["quality"]["dense"] == pytest.approx(tuned["quality"]["after"])
    assert both.report["quality"]["compressed"] == pytest.approx(recovered["quality"]["after"])
    assert tuned["losses"].keys() == {"task"}
    assert recovered["losses"].keys() == {"distillation", "hidden"}
    card = (both.directory / "README.md").read_text()
    assert "| 01-train | the dense model | 12 |" in card
    assert "| 03-train | a recovered model | 12 |" in card
    assert pruned["encoder_macs"]["compressed"] <= 0.5 * pruned["encoder_macs"]["dense"]


def test_the_trained_model_is_the_one_that_is_left(both: Any):
    model: Any = compressor.load(both.directory)
    assert sum(p.numel() for p in model.parameters()) == both.report["model"]["parameters"]["compressed"]
    assert not list((both.directory / "stages").glob("*/checkpoints"))
    assert not list((both.directory / "stages").glob("*/model"))


class Stop:
    """When to interrupt: after so many calls of the loss; never where None."""

    after: ClassVar[int | None] = None


class Stopping(Loss):
    """A loss that can interrupt a run, as a kill would."""

    name = "stopping"
    needs_labels = True

    def start(self, session: Any) -> LossRun:
        task = session.task

        class Run(LossRun):
            calls = 0

            def __call__(self, student: Any, teacher: Any, batch: Any) -> Any:  # noqa: ARG002 - the contract's
                self.calls += 1
                if self.calls == Stop.after:
                    raise KeyboardInterrupt
                return task.sample_losses(student.logits, batch).mean()

        return Run()


class Tuning(PruningMethod):
    """A method that trains while it prunes: here, it prunes nothing."""

    name = "tuning"

    train: Training = Field(default_factory=Training.defaults, validate_default=True, description="How it trains.")

    @property
    def joint(self) -> bool:
        return True

    def prune(self, session: Any) -> Pruned:
        trained = TrainingRun(session, self.train).fit(Extension(key=json.dumps(self.options())))
        weights = dict(trained.model.named_parameters())
        return Pruned(Masks({}), weights=weights, metrics={"training": trained.figures})


class Provider:
    @hookimpl
    def compressor_components(self) -> Iterator[type[Component]]:
        yield from (Stopping, Tuning)


def stopping() -> Registry:
    registry = Registry.load()
    registry.register(Provider(), "test")
    return registry


def test_an_interrupted_training_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train = {**RECOVER["train"], "losses": ["stopping", "hidden"], "checkpoint_every": 2}
    recipe = toy_recipe(tmp_path, steps=[PRUNE, {"train": train}])
    run_recipe(recipe, tmp_path / "whole", registry=stopping())
    for after in (7, 5):  # the loss is called once more than there were steps: when the training is set up
        monkeypatch.setattr(Stop, "after", after)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "out", registry=stopping())
    monkeypatch.setattr(Stop, "after", None)
    resumed = run_recipe(recipe, tmp_path / "out", registry=stopping())
    assert resumed.report["steps"][1]["metrics"]["training"]["resumed_from_step"] == 6
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


class Interrupting:
    """Stops before the export."""

    @hookimpl(wrapper=True)
    def compressor_run_step(self, step: Any) -> Any:
        if step.verb == "export":
            raise KeyboardInterrupt
        return (yield)


def test_finished_trainings_are_put_back_the_dense_model_too(tmp_path: Path, both: Any):
    recipe = toy_recipe(tmp_path, steps=[TUNE, PRUNE, RECOVER, {"export": {}}, VERIFY])
    registry = Registry.load()
    registry.register(Interrupting(), "test")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=registry)
    resumed = run_recipe(recipe, tmp_path / "out")
    assert resumed.report["quality"] == both.report["quality"]
    for name in ("model.onnx", "stages/04-export/dense.onnx", "model.safetensors"):
        assert (resumed.directory / name).read_bytes() == (both.directory / name).read_bytes(), name


def test_a_checkpoint_without_a_head_can_be_fine_tuned(tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[TUNE])
    bare = compressor.load(tmp_path / "checkpoint")
    encoder: Any = bare.base_model
    for path in (tmp_path / "checkpoint").glob("*.safetensors"):
        path.unlink()
    encoder.save_pretrained(tmp_path / "checkpoint")
    one, other = (run_recipe(recipe, tmp_path / name) for name in ("one", "other"))
    assert fingerprint(one.directory) == fingerprint(other.directory)
    trained: Any = compressor.load(one.directory)
    assert trained.classifier.weight.shape == (2, 32)
    steps = [PRUNE, TUNE]
    with pytest.raises(InputError, match=r"no trained head .*classifier") as error:
        run_recipe(toy_recipe_on(recipe, steps), tmp_path / "third")
    assert "begin the recipe with a train step" in error.value.hint


def toy_recipe_on(recipe: Path, steps: Any) -> Path:
    data = yaml.safe_load(recipe.read_text())
    path = recipe.with_name("other.yaml")
    path.write_text(yaml.safe_dump({**data, "steps": steps}))
    return path


def embedding_recipe(directory: Path, *steps: Any) -> Path:
    checkpoint = tiny_checkpoint(directory / "encoder", "bert", head="feature-extraction")
    recipe = toy_recipe(directory, model=str(checkpoint), steps=list(steps))
    texts = directory / "texts.txt"
    rows = [row for name in ("train", "validation") for row in (directory / f"{name}.csv").read_text().splitlines()[1:]]
    texts.write_text("\n".join(row.rpartition(",")[0] for row in rows))
    task = {"name": "embedding", "train": str(texts), "max_length": 32}
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "task": task}))
    return recipe


def test_a_task_without_labels_is_recovered_by_distillation(tmp_path: Path):
    train = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "dropout": False}
    result = run_recipe(embedding_recipe(tmp_path, PRUNE, {"train": train}), tmp_path / "out")
    metrics = result.report["steps"][1]["metrics"]["training"]
    assert metrics["losses"].keys() == {"distillation"}
    assert metrics["quality"]["after"]["cosine"] > metrics["quality"]["before"]["cosine"]


def test_question_answering_is_recovered(tmp_path: Path):
    train = {"epochs": 1, "batch_size": 8, "losses": ["task", "distillation", "reused-head"]}
    recipe = squad_recipe(tmp_path, steps=[PRUNE, {"train": train}])
    result = run_recipe(recipe, tmp_path / "out")
    assert result.report["steps"][1]["metrics"]["training"]["losses"].keys() == {"task", "distillation", "reused-head"}
    weights = [load_file(place / "model.safetensors") for place in (tmp_path / "out", tmp_path / "answers")]
    assert torch.equal(*(found["qa_outputs.weight"] for found in weights))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"export": {}}, TUNE], "expected before export: what is trained now"),
        ([{"train": {"epochs": 1, "max_steps": 3}}], "expected epochs or max_steps; got both"),
        ([{"train": {"batch_size": 10, "gradient_accumulation": 4}}], "got 10 rows in 4 parts"),
        ([{"train": {"losses": ["distilation"]}}], "did you mean 'distillation'?"),
        ([{"train": {"losses": [{"name": "distillation", "temprature": 2}]}}], "did you mean 'temperature'?"),
        ([{"train": {"losses": []}}], "expected at least one loss"),
        ([{"train": {"losses": [{"name": "hidden", "layers": {"top": 1}}]}}], "expected an integer, got 'top'"),
        (
            [{"train": {"losses": [{"name": "hidden", "layers": {}}]}}],
            "steps.0.train.losses.0.layers: expected at least one pair",
        ),
        ([{"train": {"learning_rate": "fast"}}], "steps.0.train.learning_rate: expected a number"),
        ([{"train": {"precision": "int8"}}], "expected one of 'fp32', 'bf16', 'fp16'"),
        ([{"train": {"schedule": "constant", "warmup": 0.1}}], "expected schedule constant_with_warmup"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(steps: Any, message: str, tmp_path: Path):
    with pytest.raises(RecipeError) as error:
        run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    assert message in str(error.value)


def test_a_task_without_labels_refuses_losses_that_need_them(tmp_path: Path):
    steps = [{"train": {"losses": ["hidden", "task"]}}]
    with pytest.raises(RecipeError, match="the task has none; got task"):
        run_recipe(embedding_recipe(tmp_path, *steps), tmp_path / "out")


def test_training_a_model_against_itself_is_remarked(tmp_path: Path):
    plans = [
        compile_plan(load_recipe(toy_recipe(tmp_path, steps=steps)), Registry.load())
        for steps in ([RECOVER, PRUNE], [TUNE, PRUNE, RECOVER])
    ]
    assert [any("compare the model with itself" in lint for lint in plan.lints) for plan in plans] == [True, False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_without_a_gpu_is_refused(tmp_path: Path):
    with pytest.raises(SetupError, match=r"steps\.0\.train: precision fp16 needs a CUDA device"):
        run_recipe(toy_recipe(tmp_path, steps=[{"train": {"precision": "fp16"}}]), tmp_path / "out")


def test_a_tracker_that_is_unknown_is_refused(tmp_path: Path):
    with pytest.raises(SetupError, match=r"report_to nonsense"):
        run_recipe(toy_recipe(tmp_path, steps=[{"train": {"report_to": "nonsense"}}]), tmp_path / "out")


@pytest.mark.skipif(is_wandb_available(), reason="the tracker is installed")
def test_a_tracker_that_is_not_installed_is_found_before_training(tmp_path: Path):
    with pytest.raises(SetupError, match=r"steps\.0\.train: report_to wandb: .* requires wandb to be installed"):
        run_recipe(toy_recipe(tmp_path, steps=[{"train": {"report_to": "wandb"}}]), tmp_path / "out")


def test_other_train_rows_undo_a_finished_training(tmp_path: Path):
    recipe = toy_recipe(tmp_path, steps=[TUNE])
    first = run_recipe(recipe, tmp_path / "one").report["steps"][0]["metrics"]["training"]
    write_rows(tmp_path / "train.csv", 48, seed=9)
    second = run_recipe(recipe, tmp_path / "two").report["steps"][0]["metrics"]["training"]
    assert json.dumps(first) != json.dumps(second)


def test_a_method_can_train_with_the_options_of_the_step(tmp_path: Path):
    options = TUNE["train"]
    given = [{"prune": {"method": "tuning", "train": {**options, "losses": ["stopping"]}}}]
    result = run_recipe(toy_recipe(tmp_path, steps=given), tmp_path / "out", registry=stopping())
    assert result.report["steps"][0]["metrics"]["training"]["losses"].keys() == {"stopping"}
    run_recipe(
        toy_recipe(tmp_path, steps=[{"train": {**options, "losses": ["stopping"]}}]),
        tmp_path / "step",
        registry=stopping(),
    )
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "step")


def test_the_training_of_a_method_has_the_losses_of_the_task_and_is_in_the_digest(tmp_path: Path):
    def compiled(**options: Any) -> Any:
        recipe = toy_recipe(tmp_path, steps=[{"prune": {"method": "tuning", **options}}])
        return compile_plan(load_recipe(recipe), stopping())

    plain: Any = compiled().steps[0].component
    assert [loss.name for loss in plain.train.losses] == ["task"]
    assert compiled().digest == compiled(train={}).digest != compiled(train={"epochs": 1}).digest
    with pytest.raises(
        RecipeError, match=r"steps\.0\.prune\.train\.losses\.0: unknown loss 'tusk'; did you mean 'task'"
    ):
        compiled(train={"losses": ["tusk"]})
