"""``smp``: scores are means over sentences, whatever the batches; a scorer is trained alike every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from torch import Tensor

from compressor.errors import InputError
from compressor.model import Masks, shrink
from compressor.plugin import Registry, Target
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import load
from compressor.testing import session_on, tiny_model
from compressor_plugins.methods import _scorer_objective, _scorer_training
from compressor_plugins.methods._head_quota import lowest_removed
from compressor_plugins.methods._map_scorer import MapScorer, fresh_scorer, padded_maps
from compressor_plugins.methods._scorer_files import load_scorer, save_scorer
from compressor_plugins.methods._scorer_objective import Objective
from compressor_plugins.methods._scorer_texts import Texts as ScorerTexts
from compressor_plugins.methods._sentences import draw_sentences
from compressor_plugins.methods._smp import mean_scores
from compressor_plugins.methods._smp_options import ScorerTraining, TrainedScorer
from compressor_plugins.methods.heads import Heads
from compressor_plugins.methods.smp import Smp
from tests.plugins.sessions import FAMILIES, Labelled
from tests.toys import toy_recipe


class Texts(Labelled):
    """Rows that can be loaded."""

    name = "texts"
    rows: ClassVar[Any] = ()

    def load(self, split: Any, tokenizer: Any, **_: Any) -> Any:  # noqa: ARG002 - the contract's
        return Dataset.from_list([dict(row) for row in type(self).rows])


def session_of(model_type: str = "bert", *, run_dir: Path = Path("unused"), **shape: Any) -> Any:
    session = session_on(tiny_model(model_type, **shape), FAMILIES[model_type], Texts(), run_dir=run_dir)
    Texts.rows = session.calibration.rows
    return session


@pytest.fixture
def scorer_file(tmp_path: Path) -> Path:
    """A scorer that tells maps apart: fresh, with statistics of real maps."""
    scorer = fresh_scorer(torch.Generator().manual_seed(0)).train()
    maps = torch.rand(16, 1, 128, 128, generator=torch.Generator().manual_seed(1)).softmax(dim=3)
    for _ in range(20):
        scorer(maps)
    with torch.no_grad():
        for parameter in scorer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
    save_scorer(scorer, tmp_path / "scorer.safetensors", {})
    return tmp_path / "scorer.safetensors"


def method(scorer: Any, heads: float = 0.5, **options: Any) -> Smp:
    return Smp(target=Target(heads=heads), scorer=scorer, **options)


def training(**options: Any) -> TrainedScorer:
    return TrainedScorer(
        train=ScorerTraining(**{"lessons": 2, "swaps": 3, "steps": 2, "batch_size": 8, "scored": 2, **options})
    )


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("mode", ["pair", "single"])
def test_scores_are_the_mean_over_sentences_of_what_eager_maps_score(model_type: str, mode: Any, scorer_file: Path):
    session = session_of(model_type)
    found = method(scorer_file, sentences=8, mode=mode).prune(session).metrics["head_scores"]
    scorer, _ = load_scorer(scorer_file)
    rows = draw_sentences(method(scorer_file, sentences=8), session, session.model)
    eager: Any = tiny_model(model_type, attention="eager")
    totals: list[Tensor] = [torch.zeros(4)] * 3
    for batch in replace(rows, batch_size=1).batches():
        with torch.no_grad():
            maps = eager(**batch, output_attentions=True).attentions
            for layer, own in enumerate(maps):
                scores = scorer(padded_maps(own, batch["attention_mask"]))[:, 0 if mode == "pair" else 1]
                totals[layer] = totals[layer] + scores / 8
    for values, expected in zip(found.values(), totals, strict=True):
        assert values == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("length_normalised", [False, True])
def test_batches_and_padding_do_not_matter(length_normalised: bool, scorer_file: Path):  # noqa: FBT001 - a parameter
    session, (scorer, _) = session_of(), load_scorer(scorer_file)
    rows = draw_sentences(method(scorer_file), session, session.model)
    one, other = (
        mean_scores(scorer, replace(rows, batch_size=size), length_normalised=length_normalised) for size in (1, 7)
    )
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_masks_and_the_model_stays_as_it_was(scorer_file: Path):
    session = session_of()
    before = {name: parameter.clone() for name, parameter in session.model.named_parameters()}
    one, other = (method(scorer_file).prune(session) for _ in range(2))
    assert one.masks == other.masks
    assert one.metrics["head_scores"] == other.metrics["head_scores"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in session.model.modules())
    assert all(torch.equal(parameter, before[name]) for name, parameter in session.model.named_parameters())


def test_the_mode_is_the_task_s_unless_it_is_given(tmp_path: Path, scorer_file: Path):
    recipe = toy_recipe(
        tmp_path, steps=[{"prune": {"method": "smp", "target": {"heads": 0.5}, "scorer": str(scorer_file)}}]
    )
    registry = Registry.load()
    session = load.open_session(compile_plan(load_recipe(recipe), registry), registry, tmp_path, torch.device("cpu"))
    assert not draw_sentences(method(scorer_file), session, session.model).pair
    assert draw_sentences(method(scorer_file, mode="pair"), session, session.model).pair
    pairs = session.task.model_copy(update={"text_pair": "label"})
    assert draw_sentences(method(scorer_file), replace(session, task=pairs), session.model).pair


def test_a_pruned_model_with_an_emptied_layer_is_scored(scorer_file: Path):
    session = session_of()
    groups = [group for group in session.groups if group.kind == "heads"]
    gone = Masks({group.name: torch.arange(4) < left for group, left in zip(groups, (4, 3, 0), strict=True)})
    ragged = replace(session, model=shrink(session.model, session.family, gone))
    pruned = method(scorer_file).prune(ragged)
    assert pruned.metrics["heads_kept"] == [2, 2, 0]


@pytest.mark.parametrize("shape", [{}, {"num_hidden_layers": 5}, {"num_hidden_layers": 2, "num_attention_heads": 8}])
def test_a_scorer_is_trained_whatever_layers_and_heads_there_are(shape: dict[str, int], tmp_path: Path):
    session = session_of(run_dir=tmp_path, **shape)
    pruned = method(training()).prune(session)
    heads = shape.get("num_attention_heads", 4)
    assert pruned.metrics["heads_kept"] == [heads // 2] * shape.get("num_hidden_layers", 3)
    _, provenance = load_scorer(tmp_path / "stages/01-step/scorer.safetensors")
    assert provenance["heads"] == [heads] * shape.get("num_hidden_layers", 3)
    assert provenance["tasks"][0]["name"] == "texts"
    assert provenance["options"]["steps"] == 2
    assert {"model", "weights_sha256", "model_type", "seed", "length_normalised", "rows"} <= provenance.keys()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_trains_a_scorer_by_its_seed(model_type: str, tmp_path: Path):
    files = []
    for name in ("one", "other"):
        session = session_of(model_type, run_dir=tmp_path / name)
        method(training(steps=3)).prune(session)
        files.append((tmp_path / name / "stages/01-step/scorer.safetensors").read_bytes())
    assert files[0] == files[1]


def test_another_seed_trains_another_scorer(tmp_path: Path):
    files = []
    for seed in (0, 1):
        session = session_of(run_dir=tmp_path / str(seed))
        session.plan.recipe.seed = seed
        method(training()).prune(session)
        files.append((tmp_path / str(seed) / "stages/01-step/scorer.safetensors").read_bytes())
    assert files[0] != files[1]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_killed_training_ends_in_the_same_bytes(
    optimizer: str, accumulation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = training(lessons=3, steps=3, checkpoint_every=2, optimizer=optimizer, accumulation=accumulation)
    method(options).prune(session_of(run_dir=tmp_path / "whole"))
    loss, seen = Objective.loss, []
    searched: list[int] = []
    search = _scorer_training.lessons

    def killed(self: Objective, number: int) -> Tensor:
        seen.append(number)
        if number == 5 and seen.count(5) == 1:
            raise KeyboardInterrupt
        return loss(self, number)

    monkeypatch.setattr(Objective, "loss", killed)
    monkeypatch.setattr(_scorer_training, "lessons", lambda *a, **k: searched.append(1) or search(*a, **k))
    session = session_of(run_dir=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        method(options).prune(session)
    method(options).prune(session)
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5]
    assert searched == [1]
    whole, again = (
        (tmp_path / name / "stages/01-step/scorer.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == again


def test_a_checkpoint_of_another_training_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = session_of(run_dir=tmp_path)
    method(training(steps=2, checkpoint_every=1)).prune(session)
    seen: list[int] = []
    loss = Objective.loss
    monkeypatch.setattr(Objective, "loss", lambda self, number: seen.append(number) or loss(self, number))
    method(training(steps=2, checkpoint_every=1, learning_rate=0.5)).prune(session)
    assert seen == [0, 1, 2, 3]


def test_masks_are_sampled_in_half_of_the_layers_and_nothing_else_has_a_gradient(monkeypatch: pytest.MonkeyPatch):
    session = session_of(num_hidden_layers=5)
    rows = draw_sentences(method(training()), session, session.model)
    texts = [ScorerTexts(session.task, session.task.load("train", session.tokenizer))]
    scorer = fresh_scorer(torch.Generator().manual_seed(0)).train()
    options = ScorerTraining(lessons=0, steps=1, batch_size=8, scored=2)
    run = Objective(options, rows, scorer, texts, seed=0, length_normalised=False)
    gates: list[dict[str, Tensor]] = []
    masked = _scorer_objective.masked
    monkeypatch.setattr(
        _scorer_objective, "masked", lambda model, groups, keep: gates.append(keep) or masked(model, groups, keep)
    )
    loss = run.loss(0)
    loss.backward()
    assert len(gates) == options.draws
    for keep in gates:
        assert len(keep) == 3
        assert all(set(gate.tolist()) <= {0.0, 1.0} and int(gate.sum()) == 2 for gate in keep.values())
    assert all(parameter.grad is not None for parameter in scorer.parameters())
    assert all(parameter.grad is None for parameter in session.model.parameters())


def test_a_lesson_costs_how_far_every_score_is_from_the_head_s_place():
    session = session_of()
    rows = draw_sentences(method(training()), session, session.model)
    texts = [ScorerTexts(session.task, session.task.load("train", session.tokenizer))]
    scorer = fresh_scorer(torch.Generator().manual_seed(0)).eval()  # all its scores are 1: the middle
    options = ScorerTraining(lessons=2, batch_size=8, scored=2)
    places = {f"1.{group.name}": torch.tensor([0.5, 0.5, 0.9, 0.5]) for group in rows.groups}
    run = Objective(options, rows, scorer, texts, seed=0, length_normalised=False, lessons=places)
    assert float(run.loss(0).detach()) == pytest.approx(0.04, abs=1e-3)


def test_rewinding_gives_the_weights_of_the_checkpoint_back_and_scores_those(tmp_path: Path, scorer_file: Path):
    recipe = toy_recipe(
        tmp_path, steps=[{"prune": {"method": "smp", "target": {"heads": 0.5}, "scorer": str(scorer_file)}}]
    )
    registry = Registry.load()
    session = load.open_session(compile_plan(load_recipe(recipe), registry), registry, tmp_path, torch.device("cpu"))
    tuned = replace(session, model=tiny_model(seed=7).requires_grad_(requires_grad=False))
    pruned = method(scorer_file, rewind=True).prune(tuned)
    assert pruned.metrics["head_scores"] == method(scorer_file).prune(session).metrics["head_scores"]
    weights = dict(session.model.named_parameters())
    assert pruned.weights.keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in pruned.weights.items())
    smaller = replace(session, model=shrink(session.model, session.family, pruned.masks))
    with pytest.raises(InputError, match="rewind: an earlier step removed parts of the model"):
        method(scorer_file, rewind=True).prune(smaller)


def test_too_few_rows_for_a_batch_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"task 'texts' has 40 train rows; a batch needs 64"):
        method(training(batch_size=64)).prune(session_of(run_dir=tmp_path))


def test_a_scorer_of_other_maps_is_refused_before_anything_runs(tmp_path: Path):
    path = tmp_path / "scorer.safetensors"
    save_scorer(MapScorer(), path, {"length_normalised": True, "model_type": "bert"})
    with pytest.raises(InputError, match="trained with length_normalised: true"):
        method(path).check(tiny_model())
    method(path, length_normalised=True).check(tiny_model())


def test_a_scorer_of_another_family_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "scorer.safetensors"
    save_scorer(MapScorer(), path, {"model_type": "bert"})
    method(path).check(tiny_model("distilbert"))
    assert "trained on a model of type bert; this one is distilbert" in caplog.text


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ("no.bin", "no such file or directory"),
        (".", "expected a file, got a directory"),
        ({"train": {"steps": -1}}, "greater than or equal to 0"),
        ({"train": {"steps": 0, "lessons": 0}}, "expected lessons or steps above 0"),
        ({"train": {"batch_size": 7}}, "multiple of 2"),
        ({"train": {"batch_size": 4, "scored": 8}}, "expected scored of at most batch_size, 4; got 8"),
        ({"train": {"optimizer": "lamb"}}, "adam"),
        ({}, "train"),
        (3, "scorer"),
    ],
)
def test_a_scorer_that_is_none_is_refused_by_the_recipe(scorer: Any, said: str):
    with pytest.raises(ValidationError, match=said):
        Smp(target=Target(heads=0.5), scorer=scorer)


def test_a_mistake_in_a_training_is_reported_where_it_stands(tmp_path: Path):
    steps = [{"prune": {"method": "smp", "target": {"heads": 0.5}, "scorer": {"train": {"stepz": 3}}}}]
    with pytest.raises(InputError) as caught:
        compile_plan(load_recipe(toy_recipe(tmp_path, steps=steps)), Registry.load())
    assert "steps.0.prune.scorer.train.stepz: unknown option 'stepz'; did you mean 'steps'?" in str(caught.value)


def test_a_plan_holds_every_option_of_the_training_and_its_tasks(tmp_path: Path):
    task = {"name": "embedding", "corpus": "python-docs"}
    steps = [{"prune": {"method": "smp", "target": {"heads": 0.5}, "scorer": {"train": {"tasks": [task]}}}}]
    plan = compile_plan(load_recipe(toy_recipe(tmp_path, steps=steps)), Registry.load())
    resolved = plan.resolved()["steps"][0]["prune"]["scorer"]["train"]
    assert resolved["tasks"][0]["corpus"] == "python-docs"
    assert resolved["steps"] == ScorerTraining().steps
    assert json.loads(json.dumps(resolved)) == resolved
    assert "task:embedding" in plan.providers


def test_a_session_s_stage_is_where_the_scorer_is_left():
    session = session_of(run_dir=Path("somewhere"))
    assert session.stage == Path("somewhere/stages/01-step")
    assert isinstance(session.plan, SimpleNamespace)


@pytest.mark.real
@pytest.mark.parametrize("file", ["base", "large"])
def test_two_disjoint_halves_of_the_text_agree_on_the_heads(file: str, shared: Path, tmp_path: Path):
    scorer, _ = load_scorer(shared / "models/smp-scorers" / f"{file}.bin")
    recipe = toy_recipe(
        tmp_path,
        model=str(shared / "models/all-MiniLM-L6-v2"),
        task={"name": "embedding", "corpus": "python-docs"},
        calibration={"samples": 256, "batch_size": 32},
        steps=[{"prune": {"method": "heads", "target": {"heads": 0.5}}}],
    )
    registry = Registry.load()
    session = load.open_session(compile_plan(load_recipe(recipe), registry), registry, tmp_path, torch.device("cpu"))
    rows = draw_sentences(method_of_all(256), session, session.model)
    agreements = {}
    for pair in (True, False):
        halves = [
            mean_scores(scorer, replace(rows, rows=rows.rows[start::2], pair=pair), length_normalised=False)
            for start in (0, 1)
        ]
        masks = [torch.stack([lowest_removed(values, 6) for values in scores.values()]) for scores in halves]
        agreements["pair" if pair else "single"] = float((masks[0] == masks[1]).float().mean())
    print(file, agreements)  # noqa: T201 - with pytest -s
    assert min(agreements.values()) >= 0.9


def method_of_all(sentences: int) -> Heads:
    return Heads(target=Target(heads=0.5), sentences=sentences)
