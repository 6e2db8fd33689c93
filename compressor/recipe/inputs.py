"""The files that a recipe names, looked at without torch: what a run would refuse after a minute is said at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError, InputError, PluginError
from compressor.model.directory import CONFIG, check_vocabulary, checkpoint_directory, weight_files
from compressor.plugin import Glance, Task
from compressor.plugin.components import Split
from compressor.recipe.loader import Recipe
from compressor.recipe.plan import Mistake, Plan, Step
from compressor.recipe.reads import trains_head, what_is_read

LABELS = 2
"""Outputs that transformers gives a head of which the config says nothing."""


def input_mistakes(recipe: Recipe, task: Task | None, steps: Sequence[Step]) -> Iterator[Mistake]:
    """Yield what is wrong with the checkpoint's directory and with the files of the rows that are read.

    Args:
        recipe: what is asked; a model of the hub is not looked at.
        task: None where the recipe's cannot be used.
        steps: those that can.

    Raises:
        PluginError: the task fails.
    """
    directory = Path(recipe.model)
    if directory.is_dir():
        yield from ((("model",), message) for message in _directory_mistakes(directory))
    if task is None:
        return
    unusable = not steps or steps[0].index > 0
    may_train = unusable and bool(recipe.steps) and recipe.steps[0].verb == "train"
    label2id = None if may_train or trains_head(steps) else _label2id(directory)
    splits: list[Split] = ["train", "validation"] if what_is_read(steps).validation else ["train"]
    found = [problem for split in splits for problem in _glance(task, split, label2id).problems]
    yield from ((("task", option), message) for option, message in dict.fromkeys(found))


def train_samples(plan: Plan) -> int | None:
    """Return how many samples the train split has; None where that is not known before it is read."""
    return _glance(plan.task, "train", None).samples


def _glance(task: Task, split: Split, label2id: Mapping[str, int] | None) -> Glance:
    try:
        return task.glance(split, label2id=label2id)
    except CompressorError:
        raise
    except Exception as error:  # a plugin may raise anything
        name = f"task '{task.name}' ({type(task).__module__})"
        raise PluginError(
            f"{name} failed at a glance at the {split} rows: {type(error).__name__}: {error}",
            hint="report it to the plugin's authors",
        ) from error


def _directory_mistakes(directory: Path) -> Iterator[str]:
    checks: list[Callable[[Path], object]] = [checkpoint_directory, _config, weight_files, check_vocabulary]
    if not (directory / CONFIG).is_file():
        checks = [checkpoint_directory]  # its advice is about the whole directory
    for check in checks:
        try:
            check(directory)
        except InputError as error:
            yield error.line


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON object with a model_type: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{path}: expected a JSON object with a model_type")
    return config


def _label2id(directory: Path) -> Mapping[str, int] | None:
    """Return class ids by name as transformers takes them from the config, where that is plain to see."""
    try:
        config = _config(directory)
    except InputError:
        return None
    names, ids = config.get("id2label"), config.get("label2id")
    if names is None and ids is None:
        count = config.get("num_labels", LABELS)
        return {f"LABEL_{number}": number for number in range(count)} if isinstance(count, int) else None
    if not (isinstance(names, dict) and isinstance(ids, dict) and len(names) == len(ids)):
        return None
    return ids if all(isinstance(number, int) for number in ids.values()) else None
