"""The load and calibrate stages: from a plan to a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from compressor.errors import InputError, PluginError, SetupError
from compressor.model import checkpoint, local_directory, max_positions
from compressor.model.directory import check_vocabulary
from compressor.model.source import UnknownModelTypeError
from compressor.plugin.components import ModelFamily, Split, Task
from compressor.plugin.registry import Registry
from compressor.processes import Processes
from compressor.recipe.options import CalibrationOptions
from compressor.recipe.plan import Plan
from compressor.recipe.reads import trains_head, what_is_read
from compressor.run.calls import NamedFamily, plugin_call
from compressor.run.data import Calibration, rows_digest
from compressor.run.preflight import (
    check_lengths,
    check_problem,
    check_training,
    tasks_read,
)
from compressor.run.session import Session

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn


def families(registry: Registry) -> Mapping[str, ModelFamily]:
    """Return every installed family by the model types it covers.

    Raises:
        PluginError: a family cannot be made, or two cover the same model type.
    """
    by_type: dict[str, ModelFamily] = {}
    for name in registry.names("family"):
        cls = cast("type[ModelFamily]", registry.get("family", name))
        with plugin_call(cls, "looking for the model's family"):
            covered = dict.fromkeys(cls.model_types, cls())
        for model_type in by_type.keys() & covered.keys():
            one, other = (registry.provider("family", each) for each in (by_type[model_type].name, name))
            raise PluginError(
                f"model_type '{model_type}' is covered twice: by family '{by_type[model_type].name}' of {one} "
                f"and by family '{name}' of {other}",
                hint="uninstall one of the two",
            )
        by_type |= covered
    return by_type


@contextmanager
def failures_named(registry: Registry) -> Iterator[None]:
    """Say why a model's family is not found: nothing can describe it, or a plugin that failed to load may provide it.

    Raises:
        InputError: an installed family says why it cannot cover the model.
        PluginError: no installed family covers the model, and there are plugins that failed to load.
    """
    try:
        yield
    except UnknownModelTypeError as error:
        for name in registry.names("family"):
            why = cast("type[ModelFamily]", registry.get("family", name)).refused.get(error.model_type)
            if why:
                message = f"{error.model_type}: heads and neurons of this architecture cannot be removed: {why}"
                raise InputError(message, hint="compress components family lists what can be pruned") from error
        if not registry.failures:
            raise
        broken = "\n".join(f"  {failure}" for failure in registry.failures)
        raise PluginError(
            f"{error.message}\nplugins that failed to load may provide it:\n{broken}", hint="compress plugins"
        ) from registry.failures[0].cause


def load(path: str | Path) -> nn.Module:
    """Load a model that this package wrote, or any checkpoint of a supported family, in eval mode.

    Args:
        path: a run's output directory (``config.json`` and ``model.safetensors``), pruned or not.

    Raises:
        InputError: the directory is not a checkpoint, or its weights are not a readable safetensors file.
        PluginError: no installed family covers the model, and a plugin that may provide one failed to load.
    """
    registry = Registry.load()
    with failures_named(registry):
        return checkpoint.load(Path(path), families(registry))


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SetupError: CUDA was asked for and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SetupError("--device cuda: torch sees no CUDA device", hint="use --device cpu, or install a CUDA torch")
    processes = Processes.of_environment()
    return torch.device("cuda", processes.local_rank) if name == "cuda" and processes.count > 1 else torch.device(name)


def load_tokenizer(directory: Path, *, longest: int) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Args:
        directory: of the checkpoint.
        longest: tokens the model can read; where the tokenizer's files allow more, texts are cut to this.

    Raises:
        InputError: there is none, or it has no padding token.
    """
    check_vocabulary(directory)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory}: no usable tokenizer: {error}", hint="copy the tokenizer files into the checkpoint directory"
        ) from error
    if tokenizer.pad_token is None:
        raise InputError(f"{directory}: the tokenizer has no padding token, which batches need")
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


def load_rows(
    task: Task, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None
) -> Dataset:
    """Return a split's tokenised rows.

    Raises:
        InputError: the split is empty, or cannot be read.
        PluginError: the task fails.
    """
    with plugin_call(task, f"loading the {split} rows"):
        rows = task.load(split, tokenizer, label2id=label2id)
    if len(rows) == 0:
        raise InputError(f"task '{task.name}': the {split} split has no rows")
    return rows


def draw_calibration(
    dataset: Dataset, options: CalibrationOptions, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> Calibration:
    """Draw rows without replacement.

    Args:
        dataset: every row of the task's train split.
        options: how many rows, or how many tokens, and the batch size.
        tokenizer: of the checkpoint.
        seed: of the draw; the options' own seed wins.
    """
    order = np.random.default_rng(seed if options.seed is None else options.seed).permutation(len(dataset))
    if options.tokens is None:
        drawn = order[: options.samples]
    else:
        lengths = np.array([len(ids) for ids in dataset.select(order)["input_ids"]])
        drawn = order[: int(np.searchsorted(lengths.cumsum(), options.tokens)) + 1]
    return calibration_of(dataset, drawn.tolist(), options.batch_size, tokenizer)


def calibration_of(
    dataset: Dataset, numbers: Sequence[int], batch_size: int, tokenizer: PreTrainedTokenizerBase
) -> Calibration:
    """Return rows by their numbers, at least one, the short ones first."""
    # Rows of like length share a batch: padding would cost several times the work on ragged text.
    pairs = zip(dataset.select(numbers).to_list(), numbers, strict=True)
    rows, found = zip(*sorted(pairs, key=lambda pair: len(pair[0]["input_ids"])), strict=True)
    return Calibration(rows, batch_size, tokenizer, found)


def _check_ids(rows: Sequence[Mapping[str, Any]], model: nn.Module, source: str) -> None:
    largest = max(max(row["input_ids"]) for row in rows)
    encoder: Any = model
    known: int = encoder.get_input_embeddings().num_embeddings
    if largest >= known:
        raise InputError(
            f"{source}: the tokenizer gives token {largest}, the model knows tokens 0 to {known - 1}",
            hint="the tokenizer files and the weights must come from the same model",
        )


def open_session(plan: Plan, registry: Registry, run_dir: Path, device: torch.device) -> Session:
    """Load everything a plan names: model, tokenizer, family, task, calibration rows.

    Raises:
        CompressorError: any of them cannot be used; the message says which and why.
    """
    recipe = plan.recipe
    by_type = families(registry)
    source = local_directory(recipe.model, recipe.revision)
    named = {model_type: NamedFamily(family, "loading the model") for model_type, family in by_type.items()}
    torch.manual_seed(recipe.seed)  # of a new head
    with failures_named(registry):
        dense = checkpoint.load_pretrained(
            str(source), named, head=plan.task.head, num_labels=plan.task.num_labels, new_head=trains_head(plan.steps)
        )
    model = dense.to(device)
    config: Any = model.config
    check_problem(plan, config)
    longest = max_positions(model)
    check_lengths(plan, longest)
    check_training(plan, device)
    tokenizer = load_tokenizer(source, longest=longest)
    read = what_is_read(plan.steps)
    train = load_rows(plan.task, "train", tokenizer, label2id=config.label2id)
    calibration = draw_calibration(train, plan.calibration, tokenizer, seed=recipe.seed)
    validation = (
        load_rows(plan.task, "validation", tokenizer, label2id=config.label2id).to_list() if read.validation else []
    )
    _check_ids((*calibration.rows, *validation), model, recipe.model)
    return Session(
        plan=plan,
        run_dir=run_dir,
        device=device,
        model=model,
        teacher=model.requires_grad_(False),
        tokenizer=tokenizer,
        family=by_type[config.model_type],
        task=plan.task,
        calibration=calibration,
        source=source,
        validation=validation,
        train_rows=cast("Sequence[Mapping[str, Any]]", train) if read.train else (),
        train_digest=rows_digest(cast("Sequence[Mapping[str, Any]]", train)) if read.train else "",
        read_digests=_read_digests(plan, train, tokenizer),
    )


def _read_digests(plan: Plan, own: Dataset, tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[str, ...]]:
    """Return hashes of the train rows that methods load themselves, ``own`` of the recipe's task, by the slugs of their steps."""

    def digest(task: Task) -> str:
        rows = own if task == plan.task else load_rows(task, "train", tokenizer, label2id=None)
        return rows_digest(cast("Sequence[Mapping[str, Any]]", rows))

    tasks = {step.slug: tasks_read(step, plan) for step in plan.steps}
    return {slug: tuple(digest(task) for task in read) for slug, read in tasks.items() if read}
