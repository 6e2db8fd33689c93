"""The load and calibrate stages: from a plan to a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from compressor.errors import InputError, SetupError
from compressor.model import checkpoint
from compressor.plugin.components import ModelFamily, Task
from compressor.plugin.registry import Registry
from compressor.recipe.options import CalibrationOptions
from compressor.recipe.plan import Plan
from compressor.run.data import Calibration
from compressor.run.session import Session

if TYPE_CHECKING:
    from torch import nn


def families(registry: Registry) -> Mapping[str, ModelFamily]:
    """Return every installed family by the model types it covers."""
    installed = [cast("ModelFamily", registry.get("family", name)()) for name in registry.names("family")]
    return {model_type: family for family in installed for model_type in family.model_types}


def load(path: str | Path) -> nn.Module:
    """Load a model that this package wrote, or any checkpoint of a supported family, in eval mode.

    Args:
        path: a run's output directory (``config.json`` and ``model.safetensors``), pruned or not.

    Raises:
        InputError: the directory is not a checkpoint, or its weights are not a readable safetensors file.
    """
    return checkpoint.load(Path(path), families(Registry.load()))


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SetupError: CUDA was asked for and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SetupError("--device cuda: torch sees no CUDA device", hint="use --device cpu, or install a CUDA torch")
    return torch.device(name)


def load_tokenizer(model: str, revision: str | None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Raises:
        InputError: there is none, or it has no padding token.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{model}: no usable tokenizer: {error}", hint="copy the tokenizer files into the checkpoint directory"
        ) from error
    if tokenizer.pad_token is None:
        raise InputError(f"{model}: the tokenizer has no padding token, which batches need")
    return tokenizer


def draw_calibration(
    task: Task,
    options: CalibrationOptions,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    label2id: Mapping[str, int] | None = None,
) -> Calibration:
    """Draw rows without replacement from the task's train split.

    Args:
        task: loads and tokenises the rows.
        options: how many rows, or how many tokens, and the batch size.
        tokenizer: of the checkpoint.
        seed: of the draw; the options' own seed wins.
        label2id: class ids by name, of the checkpoint.

    Raises:
        InputError: the split is empty.
    """
    dataset = task.load("train", tokenizer, label2id=label2id)
    if len(dataset) == 0:
        raise InputError(f"task '{task.name}': the train split has no rows to calibrate on")
    order = np.random.default_rng(seed if options.seed is None else options.seed).permutation(len(dataset))
    if options.tokens is None:
        drawn = order[: options.samples]
    else:
        lengths = np.array([len(ids) for ids in dataset.select(order)["input_ids"]])
        drawn = order[: int(np.searchsorted(lengths.cumsum(), options.tokens)) + 1]
    # Rows of like length share a batch: padding would cost several times the work on ragged text.
    rows = sorted(dataset.select(drawn).to_list(), key=lambda row: len(row["input_ids"]))
    return Calibration(rows=rows, batch_size=options.batch_size, tokenizer=tokenizer)


def open_session(plan: Plan, registry: Registry, run_dir: Path, device: torch.device) -> Session:
    """Load everything a plan names: model, tokenizer, family, task, calibration rows.

    Raises:
        CompressorError: any of them cannot be used; the message says which and why.
    """
    recipe = plan.recipe
    by_type = families(registry)
    model = checkpoint.load_pretrained(
        recipe.model, by_type, head=plan.task.head, revision=recipe.revision, num_labels=plan.task.num_labels
    ).to(device)
    tokenizer = load_tokenizer(recipe.model, recipe.revision)
    config: Any = model.config
    calibration = draw_calibration(plan.task, plan.calibration, tokenizer, seed=recipe.seed, label2id=config.label2id)
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
    )
