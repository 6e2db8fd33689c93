"""Every task from a checkpoint to a verified file, and what it says of a checkpoint that was tuned for another."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from pydantic import Field

import compressor
from compressor.errors import InputError, PluginError, RecipeError
from compressor.model.outputs import raw_output
from compressor.model.runtime import open_session
from compressor.plugin import Component, Metric, Registry, hookimpl
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.again import verify_again
from compressor.testing import WORDS, tiny_batch
from compressor.verify.inference import call
from compressor_plugins.tasks import _hub
from tests import lookup
from tests.run.conftest import run_recipe
from tests.tables import TAGS, candidate_rows, named_checkpoint, tagged_rows, task_recipe, write_lines


def tagging(directory: Path, model_type: str = "bert", **changes: Any) -> Path:
    model = named_checkpoint(directory / "tagger", model_type, names=TAGS, head="token-classification")
    return task_recipe(directory, "token-classification", tagged_rows, model=model, **changes)


def test_token_classification_runs_from_checkpoint_to_verified_onnx(tmp_path: Path):
    report = run_recipe(tagging(tmp_path), tmp_path / "out").report
    quality = report["quality"]
    assert quality["rows"] == 32  # examples, of which some are cut
    assert set(quality["dense"]) == {"f1", "precision", "recall", "accuracy"}
    assert quality["metric"] == "f1"
    assert quality["kl"] > 0
    assert 0 < quality["churn"] <= 1
    macs = report["model"]["encoder_macs"]
    assert macs["compressed"] <= 0.5 * macs["dense"]
    assert [put.name for put in onnx.load(tmp_path / "out" / "model.onnx").graph.output] == ["logits"]
    model: Any = compressor.load(tmp_path / "out")
    assert type(model).__name__.endswith("ForTokenClassification")
    batch = tiny_batch(labels=False) | {"token_type_ids": torch.zeros(4, 12, dtype=torch.int64)}
    session = open_session(tmp_path / "out" / "model.onnx")
    found = call(session, {put.name: batch[put.name].numpy() for put in session.get_inputs()})
    with torch.no_grad():
        expected = raw_output(model, batch).numpy()
    assert found.shape == expected.shape == (4, 12, 5)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert verify_again(tmp_path / "out", {"rounds": 3})["quality"] == quality


@pytest.mark.parametrize("method", ["obs", "kprune"])
def test_other_methods_prune_a_tagger_without_its_labels(method: str, tmp_path: Path):
    steps = [{"prune": {"method": method, "target": {"macs": 0.6}}}]
    recipe = tagging(tmp_path, steps=steps, calibration={"samples": 16, "batch_size": 8})
    metrics = run_recipe(recipe, tmp_path / "out").report["steps"][0]["metrics"]
    assert 0.4 < metrics["macs_kept"] <= 0.6
    if method == "kprune":
        assert all(fit["error_after"] < fit["error_before"] for fit in metrics["tuning"])


def test_a_tagger_learns_its_tags_and_the_dense_models(tmp_path: Path):
    losses = ["task", {"name": "distillation", "temperature": 2.0}]
    steps = [{"train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "losses": losses}}]
    metrics = run_recipe(tagging(tmp_path, steps=steps), tmp_path / "out").report["steps"][0]["metrics"]
    text = json.dumps(metrics)
    assert '"task"' in text
    assert '"distillation"' in text
    quality = metrics["training"]["quality"]
    assert quality["metric"] == "f1"
    assert quality["after"]["accuracy"] > quality["before"]["accuracy"]


# --- tasks whose files are looked up, not exported ---


def texts(labels: Callable[[random.Random], Any]) -> Callable[..., list[dict[str, Any]]]:
    def rows(count: int, *, seed: int) -> list[dict[str, Any]]:
        draw = random.Random(seed)  # noqa: S311 - toy data
        return [{"text": " ".join(draw.choices(WORDS, k=6)), "label": labels(draw)} for _ in range(count)]

    return rows


MANY = ("spam", "insult", "threat")
ROWS: dict[str, Any] = {
    "multi-label-classification": texts(lambda draw: draw.sample(MANY, draw.randint(0, 3))),
    "regression": texts(lambda draw: draw.random()),
    "reranking": candidate_rows,
    "text-classification": texts(lambda draw: draw.randint(0, 1)),
}
LOOKED_UP = ({"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": "lookup"})


def looked_up(directory: Path, task: str, *, names: tuple[str, ...], verify: Any, **options: Any) -> Path:
    problem_type = options.pop("problem_type", None)
    model = named_checkpoint(directory / "named", names=names, problem_type=problem_type)
    steps = [*LOOKED_UP, {"verify": {"rounds": 3, "sequence": 8, **verify}}]
    return task_recipe(directory, task, ROWS[task], model=model, options=options, steps=steps)


def with_plugins(*plugins: Any) -> Registry:
    registry = Registry.load()
    for number, plugin in enumerate(plugins):
        registry.register(plugin, f"plugin-{number}")
    return registry


@pytest.mark.parametrize(
    ("task", "names", "metrics", "has_kl"),
    [
        ("multi-label-classification", MANY, {"micro_f1", "macro_f1", "subset_accuracy"}, True),
        ("regression", ("score",), {"spearman", "pearson", "negative_mse"}, False),
        ("reranking", ("score",), {"spearman", "pearson", "ndcg", "mrr"}, False),
        ("reranking", ("no", "yes"), {"spearman", "pearson", "ndcg", "mrr"}, False),
    ],
    ids=["many labels", "regression", "reranker of one output", "reranker of two classes"],
)
def test_a_task_runs_from_checkpoint_to_judged_file(  # noqa: PLR0913 - a table of tasks
    task: str,
    names: tuple[str, ...],
    metrics: set[str],
    *,
    has_kl: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    lookup.hurry(monkeypatch)
    gates = {"metric_drop": 2.0}
    recipe = looked_up(tmp_path, task, names=names, verify={"gates": gates})
    finished = run_recipe(recipe, tmp_path / "out", registry=with_plugins(lookup))
    quality = finished.report["quality"]
    assert set(quality["dense"]) == metrics
    assert quality["rows"] == 32  # texts, or queries
    assert (quality["kl"] is not None) == has_kl
    assert 0.4 < finished.report["steps"][0]["metrics"]["macs_kept"] <= 0.5
    if task == "reranking":
        assert quality["dense"]["spearman"] == 1.0
    assert finished.report["gates"][0]["name"] == "metric_drop"


@pytest.mark.parametrize(
    ("task", "names", "problem_type", "message"),
    [
        ("regression", MANY, None, "needs 1 outputs of the classification head, the checkpoint's config.json says 3"),
        ("regression", ("a",), "multi_label_classification", "needs a regression, the checkpoint is a multi label"),
        ("text-classification", ("a",), None, "needs a single label classification, the checkpoint is a regression"),
        ("text-classification", MANY, "multi_label_classification", "'text-classification' needs a single label"),
        ("multi-label-classification", MANY, "single_label_classification", "needs a multi label classification"),
    ],
)
def test_the_wrong_task_for_a_checkpoint_is_one_clear_error(
    task: str, names: tuple[str, ...], problem_type: str | None, message: str, tmp_path: Path
):
    recipe = looked_up(tmp_path, task, names=names, verify={}, problem_type=problem_type)
    with pytest.raises(InputError, match=message):
        run_recipe(recipe, tmp_path / "out", registry=with_plugins(lookup))
    assert not (tmp_path / "out").exists()


def test_a_streamed_directory_runs_and_what_is_known_of_the_data_sets_version_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for seed, split in enumerate(("train", "validation")):
        write_lines(tmp_path / "rows" / f"{split}.jsonl", tagged_rows(12, seed=seed))
    monkeypatch.setattr(_hub, "pinned", lambda options: {"dataset_revision": f"commit of {Path(options.path).name}"})
    dataset = {"path": str(tmp_path / "rows"), "streaming": True, "train_rows": 9, "validation_rows": 7}
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.6}}}]
    recipe = tagging(tmp_path, steps=steps, options={"train": None, "validation": None, "dataset": dataset})
    run_recipe(recipe, tmp_path / "out")
    locked = yaml.safe_load((tmp_path / "out" / "recipe.lock.yaml").read_text())
    assert locked["inputs"]["dataset_revision"] == "commit of rows"
    assert locked["recipe"]["task"]["dataset"]["train_rows"] == 9


# --- a metric of one's own ---


class Cheap(Metric):
    """Right answers, a wrong one costing ``price`` where it is of class 1."""

    name = "cheap"
    price: float = Field(default=1.0, description="Of a wrong answer of class 1.")

    def compute(self, rows: Any) -> float:
        return float((rows["correct"] - self.price * ((rows["predictions"] == 1) & ~rows["correct"])).mean())


class Broken(Cheap):
    name = "broken"

    def compute(self, rows: Any) -> float:
        return float("nan") if self.price > 1 else rows["no such column"]


class Plugin:
    @hookimpl
    def compressor_components(self) -> Iterator[type[Component]]:
        yield Cheap
        yield Broken


def test_gates_compare_a_metric_of_ones_own_and_the_report_has_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lookup.hurry(monkeypatch)
    registry = with_plugins(lookup, Plugin())
    verify = {"metric": {"name": "cheap", "price": 3.0}, "gates": {"metric_drop": 5.0}}
    recipe = looked_up(tmp_path, "text-classification", names=("no", "yes"), verify=verify)
    finished = run_recipe(recipe, tmp_path / "out", registry=registry)
    quality = finished.report["quality"]
    assert (quality["metric"], quality["metric_options"]) == ("cheap", {"price": 3.0})
    assert set(quality["dense"]) == {"accuracy", "macro_f1", "cheap"}
    assert quality["difference"]["value"] == pytest.approx(quality["compressed"]["cheap"] - quality["dense"]["cheap"])
    assert quality["dense"]["cheap"] != quality["dense"]["accuracy"]
    plans = [
        compile_plan(load_recipe(recipe, overrides=[f"steps.2.verify.metric.price={price}"]), registry).digest
        for price in (3.0, 4.0)
    ]
    assert plans[0] != plans[1]
    monkeypatch.setattr(Registry, "load", classmethod(lambda _: registry))
    assert verify_again(tmp_path / "out", {"rounds": 3})["quality"] == quality


@pytest.mark.parametrize(
    ("price", "message"),
    [(1.0, r"metric 'broken' .* failed: KeyError: 'no such column'"), (2.0, "expected a finite number, got nan")],
)
def test_a_metric_that_breaks_is_named(price: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lookup.hurry(monkeypatch)
    verify = {"metric": {"name": "broken", "price": price}}
    recipe = looked_up(tmp_path, "text-classification", names=("no", "yes"), verify=verify)
    said: list[str] = []
    with pytest.raises(PluginError, match=message):
        run_recipe(recipe, tmp_path / "out", registry=with_plugins(lookup, Plugin()), announce=said.append)
    assert [line.split()[0] for line in said] == ["load"], "it is found before anything is done"


def test_a_metric_that_the_task_cannot_serve_is_refused_before_anything_is_done(tmp_path: Path):
    verify = {"metric": {"name": "roc-auc", "of": 2}}
    for task, names, message in (
        ("text-classification", ("no", "yes"), "expected of to be from 0 to 1, got 2"),
        ("reranking", ("score",), "the task has no classes"),
    ):
        said: list[str] = []
        recipe = looked_up(tmp_path, task, names=names, verify=verify)
        with pytest.raises(InputError, match=message):
            run_recipe(recipe, tmp_path / "out", registry=with_plugins(lookup), announce=said.append)
        assert [line.split()[0] for line in said] == ["load"]


def test_a_metric_that_is_not_installed_is_a_mistake_of_the_recipe(tmp_path: Path):
    recipe = looked_up(tmp_path, "text-classification", names=("no", "yes"), verify={"metric": "roc-auk"})
    with pytest.raises(RecipeError, match=r"verify\.metric.*unknown metric 'roc-auk'; did you mean 'roc-auc'"):
        compile_plan(load_recipe(recipe), with_plugins(lookup))
