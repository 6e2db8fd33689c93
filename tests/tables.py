"""Toy rows and recipes of tasks, for tests that run them through the whole pipeline."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from compressor.model import checkpoint
from compressor.testing import WORDS, tiny_checkpoint, tiny_model, tiny_tokenizer
from tests.toys import toy_recipe

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def tagged_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Return sentences of random words with random tags."""
    draw = random.Random(seed)  # noqa: S311 - toy data
    lengths = [draw.randint(2, 40) for _ in range(count)]
    return [
        {"tokens": draw.choices(WORDS, k=length), "tags": draw.choices(TAGS, weights=(6, 2, 2, 1, 1), k=length)}
        for length in lengths
    ]


def candidate_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Return queries with documents of random words, some of them relevant."""
    draw = random.Random(seed)  # noqa: S311 - toy data

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 10)))

    return [
        {
            "query": text(),
            "documents": [text() for _ in range(size)],
            "relevance": [draw.choice((0, 0, 1, 2)) for _ in range(size)],
        }
        for size in (draw.randint(2, 6) for _ in range(count))
    ]


def named_checkpoint(path: Path, model_type: str = "bert", *, names: tuple[str, ...] = (), **options: Any) -> Path:
    """Save a tiny checkpoint whose config names its outputs, and says ``problem_type`` where it is given."""
    problem_type = options.pop("problem_type", None)
    if names:
        options["num_labels"] = len(names)
    model: Any = tiny_model(model_type, **options)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
    model.config.problem_type = problem_type
    checkpoint.save(model, path)
    tiny_tokenizer().save_pretrained(path)
    return path


def task_recipe(
    directory: Path,
    task: str,
    rows: Any,
    *,
    model: Path | None = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a recipe of a task on jsonl rows: ``rows(count, seed=...)`` makes them."""
    files = {
        split: str(write_lines(directory / f"{split}.jsonl", rows(32, seed=seed)))
        for seed, split in enumerate(("train", "validation"))
    }
    chosen = {"name": task, **files, "max_length": 24, **(options or {})}
    source = model or tiny_checkpoint(directory / "model")
    return toy_recipe(directory, model=str(source), task=chosen, **changes)
