"""A toy checkpoint, toy data and a toy recipe, for tests that run the whole pipeline."""

from __future__ import annotations

import csv
import json
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
    """Write a checkpoint, data and a recipe that runs in seconds; return the recipe's path.

    Exports write no fused files unless they are asked for ``fused``: those take as long again.
    """
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
    recipe["steps"] = [_plainly_exported(step) for step in recipe["steps"]]
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def _plainly_exported(step: Any) -> Any:
    if not isinstance(step, dict) or not isinstance(step.get("export"), dict):
        return step
    return {"export": {"fused": False, **step["export"]}}


def write_questions(path: Path, count: int, *, seed: int, unanswerable: bool = False) -> Path:
    """Write SQuAD rows: random words as contexts, spans of them as answers, none for a third where that is allowed."""
    draw = random.Random(seed)  # noqa: S311 - toy data
    rows = []
    for number in range(count):
        words = draw.choices(WORDS, k=draw.randint(4, 60))
        first = draw.randrange(len(words))
        last = min(len(words), first + draw.randint(1, 3))
        answer = {"text": [" ".join(words[first:last])], "answer_start": [len(" ".join([*words[:first], ""]))]}
        if unanswerable and number % 3 == 0:
            answer = {"text": [], "answer_start": []}
        asked = " ".join(draw.choices(WORDS, k=5))
        rows.append({"id": str(number), "question": asked, "context": " ".join(words), "answers": answer})
    path.write_text(json.dumps(rows))
    return path


def squad_recipe(directory: Path, *, model_type: str = "bert", version: str = "1.1", **changes: Any) -> Path:
    """Write a question-answering checkpoint, toy questions and a recipe like that of ``toy_recipe``."""
    checkpoint = tiny_checkpoint(directory / "answers", model_type, head="question-answering")
    for seed, split in enumerate(("train", "validation")):
        write_questions(directory / "answers" / f"{split}.json", 40, seed=seed, unanswerable=version == "2.0")
    task = {"name": "squad", "version": float(version), "path": str(checkpoint), "max_length": 32, "stride": 8}
    return toy_recipe(directory, model_type=model_type, model=str(checkpoint), task=task, **changes)
