"""Heads are really gone: masked, removed and exported models agree, in every family, through the whole pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.model import masked
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.recipe.sweep import compile_sweep
from compressor.run.agenda import agenda
from compressor.run.facts import facts_of, places
from compressor.run.fingerprints import stage_fingerprints
from compressor.run.load import open_session
from compressor.run.pipeline import Conditions
from compressor.run.points import Site
from compressor.testing import assert_onnx_equals_torch, tiny_batch
from compressor_plugins.methods._map_scorer import fresh_scorer
from compressor_plugins.methods._scorer_files import load_scorer, save_scorer
from tests.plugins.sessions import FAMILIES
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe, write_rows

VERIFY = {"sequence": 16, "rounds": 3, "gates": {"macs": 0.95}}


def prune(**options: Any) -> dict[str, Any]:
    return {"prune": {"target": {"heads": 0.5}, **options}}


def steps(**options: Any) -> list[dict[str, Any]]:
    return [prune(**options), {"export": {"format": "onnx"}}, {"verify": VERIFY}]


def scorer_at(path: Path) -> str:
    save_scorer(fresh_scorer(torch.Generator().manual_seed(0)), path, {})
    return str(path)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_masked_equals_removed_equals_onnx(model_type: str, tmp_path: Path):
    method = {"method": "smp", "scorer": scorer_at(tmp_path / "scorer.safetensors")}
    recipe = toy_recipe(tmp_path, model_type=model_type, steps=steps(**method))
    report = run_recipe(recipe, tmp_path / "out").report
    model: Any = compressor.load(tmp_path / "out")
    family = FAMILIES[model_type]
    assert [group.units for group in family.groups(model) if group.kind == "heads"] == [2, 2, 2]
    dense, batch = compressor.load(tmp_path / "checkpoint"), tiny_batch(labels=False)
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])  # tokenizers of transformers 4 give them
    keep = Masks.load(tmp_path / "out/stages/01-prune/masks.safetensors").keep
    with torch.no_grad():
        with masked(dense, family.groups(dense), keep):
            expected = raw_output(dense, batch)
        torch.testing.assert_close(raw_output(model, batch), expected, rtol=0, atol=1e-5)
    assert_onnx_equals_torch(tmp_path / "out/model.onnx", model, batch)
    sizes = report["model"]["parameters"]
    assert sizes["compressed"] == sum(parameter.numel() for parameter in model.parameters()) < sizes["dense"]
    assert report["steps"][0]["metrics"]["heads_kept"] == [2, 2, 2]


def test_another_scorer_at_the_same_place_is_another_stage_and_refuses_a_replay(tmp_path: Path):
    scorer = tmp_path / "scorer.safetensors"
    recipe = toy_recipe(tmp_path, steps=steps(method="smp", scorer=scorer_at(scorer)))
    registry = Registry.load()
    session = open_session(compile_plan(load_recipe(recipe), registry), registry, tmp_path, torch.device("cpu"))

    def known() -> Any:
        return facts_of(session)["inputs"], stage_fingerprints(session, registry)

    (inputs, stages), (same, restored) = known(), known()
    assert (inputs, stages) == (same, restored)
    save_scorer(fresh_scorer(torch.Generator().manual_seed(1)), scorer, {})
    others, made_anew = known()
    assert [name for name in inputs if inputs[name] != others[name]] == ["named_files_sha256"]
    assert not set(stages) & set(made_anew)


def test_a_scorer_s_own_texts_are_locked_by_their_content_wherever_they_lie(tmp_path: Path):
    """Rows that no calibration draws, of files that the step alone names; of the recipe's task where it names none."""
    (tmp_path / "own").mkdir()
    files = {
        split: str(write_rows(tmp_path / "own" / f"{split}.csv", 16, seed=seed))
        for seed, split in enumerate(("train", "validation"), 5)
    }
    task = {"name": "text-classification", "max_length": 32, **files}
    registry = Registry.load()

    def known(tasks: list[dict[str, Any]]) -> Any:
        prune = {"method": "smp", "scorer": {"train": {"steps": 2, "batch_size": 8, "tasks": tasks}}}
        plan = compile_plan(load_recipe(toy_recipe(tmp_path, steps=steps(**prune))), registry)
        session = open_session(plan, registry, tmp_path, torch.device("cpu"))
        return plan, facts_of(session)["inputs"], stage_fingerprints(session, registry)

    plan, inputs, stages = known([task])
    assert known([task])[1:] == (inputs, stages)
    assert set(places(plan)) == set(files.values())
    write_rows(Path(files["train"]), 16, seed=9)
    _, others, made_anew = known([task])
    assert [name for name in inputs if inputs[name] != others[name]] == ["read_rows_sha256"]
    assert not set(stages) & set(made_anew)
    moved = shutil.move(files["train"], tmp_path / "moved.csv")
    assert known([{**task, "train": str(moved)}])[1] == others
    (default,) = known([])[1]["read_rows_sha256"]
    (named,) = known(
        [
            {
                "name": "text-classification",
                "max_length": 32,
                "train": str(tmp_path / "train.csv"),
                "validation": files["validation"],
            }
        ]
    )[1]["read_rows_sha256"]
    assert default == named != others["read_rows_sha256"][0]


def test_the_home_directory_is_a_place_of_a_scorer_s_texts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    tasks = [{"name": "text-classification", "dataset": "~/own"}]
    prune = {"method": "smp", "scorer": {"train": {"tasks": tasks}}}
    plan = compile_plan(load_recipe(toy_recipe(tmp_path, steps=steps(**prune))), Registry.load())
    assert "~/own" in set(places(plan))


def test_points_of_a_sweep_whose_scorers_read_other_texts_have_stages_of_their_own(tmp_path: Path):
    (tmp_path / "own").mkdir()
    files = {split: str(write_rows(tmp_path / "own" / f"{split}.csv", 16, seed=5)) for split in ("train", "validation")}
    texts = json.dumps({"train": {"steps": 2, "batch_size": 8, "tasks": [{"name": "text-classification", **files}]}})
    scorers = [scorer_at(tmp_path / "scorer.safetensors"), "{train: {steps: 2, batch_size: 8}}", texts]
    recipe = load_recipe(toy_recipe(tmp_path, steps=steps(method="smp", scorer=scorers[0])))
    registry, device = Registry.load(), torch.device("cpu")
    plan = compile_sweep(recipe, registry, over=[f"steps.0.prune.scorer={','.join(scorers)}"])
    found = agenda(Site(plan, tmp_path / "work", Conditions(registry, device))).fingerprints
    alone = {
        point.name: stage_fingerprints(open_session(point.plan, registry, tmp_path, device), registry)
        for point in plan.points
    }
    assert found == alone
    assert len({stages[0] for stages in found.values()}) == len(scorers)


def test_a_run_trains_a_scorer_and_leaves_it_beside_its_masks(tmp_path: Path):
    training = {"train": {"lessons": 2, "swaps": 2, "steps": 2, "batch_size": 8}}
    recipe = toy_recipe(tmp_path, steps=[prune(method="smp", scorer=training, target={"macs": 0.9})])
    run_recipe(recipe, tmp_path / "out")
    stage = tmp_path / "out/stages/01-prune"
    scorer, provenance = load_scorer(stage / "scorer.safetensors")
    assert provenance["tasks"][0]["name"] == "text-classification"
    assert not (stage / "checkpoints").exists()
    (tmp_path / "again").mkdir()
    again = toy_recipe(tmp_path / "again", steps=[prune(method="smp", scorer=str(stage / "scorer.safetensors"))])
    report = run_recipe(again, tmp_path / "again/out").report
    assert report["steps"][0]["metrics"]["heads_kept"] == [2, 2, 2]
    assert not scorer.training


def test_heads_are_removed_by_a_criterion_and_the_model_recovers(tmp_path: Path):
    first, *rest = steps(method="heads", criterion="relation", least_heads=0, target={"params": 0.75})
    train = {"train": {"max_steps": 2, "batch_size": 8}}
    report = run_recipe(toy_recipe(tmp_path, steps=[first, train, *rest]), tmp_path / "out").report
    kept = report["steps"][0]["metrics"]["heads_kept"]
    assert 0 < sum(kept) < 12
    model = compressor.load(tmp_path / "out")
    assert [group.units for group in FAMILIES["bert"].groups(model) if group.kind == "heads"] == kept
