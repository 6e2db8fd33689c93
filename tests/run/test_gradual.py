"""Whole runs of ``gradual``: from a recipe to the zeros of the ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.errors import CompressorError
from compressor.model import stored_weights
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

TUNE = {"train": {"epochs": 1, "batch_size": 8}}
REST: list[dict[str, Any]] = [{"export": {}}, {"verify": {"sequence": 8, "rounds": 3}}]


def pruning(**options: Any) -> dict[str, Any]:
    train = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "losses": ["reused-head"]}
    common = {"pruning_frequency": 3, "sparsity_warm_epochs": 1, "cooldown_epochs": 1, "train": train}
    return {"prune": {"method": "gradual", **common, **options}}


def test_every_run_of_four_in_the_file_has_exactly_two_zeros(tmp_path: Path):
    steps = [TUNE, pruning(pattern="2:4", target_sparsity=0.5), *REST]
    done = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    zeros = [(one.values.reshape(-1, 4) == 0).sum(axis=1) for one in stored_weights(tmp_path / "out" / "model.onnx")]
    pruned = [counts for counts in zeros if counts.any()]
    assert len(pruned) == 18
    assert all((counts == 2).all() for counts in pruned)
    assert done.report["sparsity"]["files"]["model"]["two_of_four"] == 18
    assert done.report["sparsity"]["masks"]["pruned_layers"]["ratio"] == 0.5
    assert done.report["steps"][1]["metrics"]["training"]["makes"] == "a pruned model"


def test_emptied_neurons_are_no_longer_in_the_file(tmp_path: Path):
    steps = [pruning(pattern="channelx1", op_names=[r"(?<!attention\.)output"], target_sparsity=0.5), *REST]
    done = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")
    sizes = done.report["model"]["parameters"]
    assert sizes["dense"] - sizes["compressed"] == 72 * (2 * 32 + 1)
    assert done.report["steps"][0]["metrics"]["removal_max_abs_diff"] < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "2:4", "target_sparsity": 0.5, "progressive": True}, "progressive mode needs blocks"),
        ({"op_names": ["nothing_like_it"]}, "choose no layer; expected some of 19, such as"),
        (
            {"pruning_configs": [{"op_names": ["output"]}, {"op_names": ["attention.output"]}]},
            "blocks 0 and 1 both mean",
        ),
        ({"pattern": "7x1"}, "can take the pattern 7x1"),
    ],
)
def test_layers_that_do_not_suit_are_refused_before_the_dense_training(
    options: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(CompressorError, match=message):
        run_recipe(toy_recipe(tmp_path, steps=[TUNE, pruning(**options), *REST]), tmp_path / "out")
    assert not list(tmp_path.rglob("stage.json"))
