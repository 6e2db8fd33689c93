"""A toy checkpoint, toy data and a toy recipe, for tests that run the whole pipeline."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import yaml

from compressor.testing import WORDS, tiny_checkpoint


def write_rows(path: Path, count: int, *, seed: int) -> Path:
    """Write a CSV of random sentences with labels 0 and 1."""
    draw = random.Random(seed)  # noqa: S311 - toy data
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            writer.writerow([" ".join(draw.choices(WORDS, k=draw.randint(2, 14))), draw.randint(0, 1)])
    return path


def toy_recipe(directory: Path, *, model_type: str = "bert", **changes: Any) -> Path:
    """Write a checkpoint, data and a recipe that runs in seconds; return the recipe's path."""
    checkpoint = tiny_checkpoint(directory / "checkpoint", model_type)
    recipe = {
        "name": "toy",
        "model": str(checkpoint),
        "task": {
            "name": "text-classification",
            "train": str(write_rows(directory / "train.csv", 48, seed=0)),
            "validation": str(write_rows(directory / "validation.csv", 40, seed=1)),
            "max_length": 32,
        },
        "calibration": {"samples": 32, "batch_size": 8},
        "steps": [
            {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
            {"export": {"format": "onnx"}},
            {"verify": {"sequence": 16, "rounds": 3, "gates": {"macs": 0.5}}},
        ],
        **changes,
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
