"""Reading and writing checkpoints: safetensors only, pruned shapes included, no code from the checkpoint.

A pruned model is a plain ``config.json`` (with ``pruned_shapes``, see ``shapes.py``) and ``model.safetensors``. Plain
``from_pretrained`` refuses such a directory, which is right; ``ignore_mismatched_sizes`` would silently load random
layers, hence it is never used here. A model that lost whole layers only is a plain checkpoint to everybody.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedModel
from transformers.utils import logging as chatter

from compressor.errors import CompressorError, InputError
from compressor.model import sentences, shapes, surgery
from compressor.model.companions import copy_companions
from compressor.model.directory import checkpoint_directory, weight_files
from compressor.model.heads import HEADS
from compressor.model.source import checkpoint_config, local_directory

if TYPE_CHECKING:
    from compressor.model.surgery import Family

__all__ = ["fingerprint", "load", "load_pretrained", "local_directory", "save"]


def save(
    model: nn.Module, directory: Path, tokenizer_source: Path | None = None, *, tokenizer: Path | None = None
) -> None:
    """Write a model, pruned or not, as ``config.json`` and ``model.safetensors``.

    Args:
        model: a transformers model.
        directory: made when it is not there.
        tokenizer_source: a checkpoint directory whose tokenizer files, and a sentence encoder's other files, are copied.
        tokenizer: directory of a tokenizer that takes the place of that one's.

    Raises:
        InputError: those files are damaged.
    """
    plain: Any = model
    with _quiet():
        plain.save_pretrained(directory)
    for path in weight_files(directory):
        shutil.copymode(directory / "config.json", path)  # safetensors lets nobody else read its files
    if tokenizer_source is not None:
        copy_companions(tokenizer_source, directory, tokenizer)


def load(directory: Path, families: Mapping[str, Family]) -> nn.Module:
    """Load what ``save`` wrote, or any checkpoint of a known family: float32, in eval mode, on the CPU.

    Args:
        directory: with ``config.json`` and safetensors.
        families: by ``model_type``.

    Raises:
        InputError: the directory is no checkpoint of a known family, or its weights are incomplete or corrupt.
    """
    config = checkpoint_config(checkpoint_directory(directory), families)
    return _load(_model_class(config), directory, config, families)


def load_pretrained(
    model: str,
    families: Mapping[str, Family],
    *,
    head: Literal["sequence-classification", "token-classification", "question-answering", "feature-extraction"],
    num_labels: int | None = None,
    new_head: bool = False,
) -> nn.Module:
    """Load the model a run starts from: float32, in eval mode, on the CPU.

    Args:
        model: a directory, or a model of the hub.
        families: by ``model_type``.
        head: with a head of this kind, or the bare encoder.
        num_labels: outputs that the head must have; None accepts any.
        new_head: give a checkpoint without such a head a random one, by torch's seed: it is going to be trained.

    Raises:
        InputError: there is no such checkpoint, its family is unknown, its weights are not complete and readable
            safetensors, or its head does not fit.
        SetupError: the hub cannot be reached and the model is not in its cache.
    """
    directory = local_directory(model)
    config = checkpoint_config(directory, families)
    model_class = HEADS[head][type(config)]
    if not new_head:
        _check_head(model, config, model_class)
    makes_head = new_head and head != "feature-extraction" and model_class.__name__ not in (config.architectures or [])
    if makes_head and num_labels is not None:
        config.num_labels = num_labels
    if head != "feature-extraction" and num_labels is not None and config.num_labels != num_labels:
        kind = head.removeprefix("sequence-").replace("-", " ")
        raise InputError(
            f"{model}: the task needs {num_labels} outputs of the {kind} head, the checkpoint's config.json "
            f"says {config.num_labels}",
            hint="give the checkpoint that was fine-tuned for this task with -m, or choose the task it was tuned for",
        )
    if head == "feature-extraction":
        sentences.remember(config, directory)
    return _load(model_class, directory, config, families, new_head=makes_head)


def fingerprint(source: Path | nn.Module) -> str:
    """Hash weights: the sha256 that ``sha256sum`` gives for a directory's one safetensors file, or of a live model."""
    if isinstance(source, nn.Module):
        digest = hashlib.sha256()
        for name, tensor in sorted(source.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
    hashes = []
    for path in weight_files(source):
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _model_class(config: Any) -> Any:
    """Return the class that ``config.json`` names as the architecture, or the bare encoder."""
    named = getattr(transformers, (config.architectures or [""])[0], None)
    known = isinstance(named, type) and issubclass(named, PreTrainedModel) and named.config_class is type(config)
    return named if known else MODEL_MAPPING[type(config)]


def _check_head(model: str, config: Any, wanted: Any) -> None:
    """Refuse a checkpoint with another head: two heads may have weights of the same names and shapes."""
    named = (config.architectures or [""])[0]
    heads = {table[type(config)].__name__: head for head, table in HEADS.items() if type(config) in table}
    if wanted is MODEL_MAPPING[type(config)] or named == wanted.__name__ or named not in heads:
        return
    if heads[named] == "feature-extraction":  # it has no head, which is said where its weights are missed
        return
    raise InputError(
        f"{model}: wrong task for this checkpoint: the task needs {wanted.__name__}, config.json says {named}, "
        f"fine-tuned for {heads[named].replace('-', ' ')}",
        hint="give the checkpoint that was fine-tuned for this task with -m, or choose the task it was tuned for "
        "(compress components task)",
    )


def _load(
    model_class: Any, directory: Path, config: Any, families: Mapping[str, Family], *, new_head: bool = False
) -> nn.Module:
    weight_files(directory)
    config.return_dict = True  # outputs are read by name
    config.chunk_size_feed_forward = 0  # hooks must see the whole FFN input at once
    family = families[config.model_type]
    try:
        with _quiet():
            model, info = _shaped(model_class, family).from_pretrained(
                str(directory),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except CompressorError:
        raise
    except Exception as error:  # transformers raises a dozen unrelated types for what is wrong with a checkpoint
        misfit = "ignore_mismatched_sizes" in str(error)  # advice that loads random layers: not to be passed on
        reason = "its weights do not have the shapes that config.json says" if misfit else error
        raise InputError(
            f"{directory}: transformers cannot load this checkpoint: {reason}",
            hint="config.json and the weights must come from the same model; download or save the checkpoint again",
        ) from error
    model.__class__ = model_class  # the shaped class has done its work; what is loaded is an ordinary model
    prefix = f"{model.base_model_prefix}."
    missing = set(info["missing_keys"])  # a list in transformers 4
    # A language model is saved without the pooler, which is as much part of the new head as what reads it.
    own = {name for name in missing if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")}
    fresh = missing - own if new_head else set()
    _settle_missing(model, sorted(missing - fresh), directory)
    loaded: nn.Module = model.eval()
    return loaded


def _shaped(model_class: Any, family: Family) -> Any:
    """Return a subclass that takes on ``config.pruned_shapes`` before ``from_pretrained`` fills in the weights."""

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        groups = family.groups(self)
        shapes.layer_ids(config, groups)  # refuses what does not fit
        kept = shapes.counts(config, groups)
        if kept:
            surgery.apply_shapes(self, groups, kept)
        if kept or getattr(config, shapes.LAYERS, None):
            family.after_shrink(self)

    # transformers looks at a class's name and at the source of its module.
    same = {name: getattr(model_class, name) for name in ("__module__", "__qualname__")}
    return type(model_class.__name__, (model_class,), {**same, "__init__": build})


def _settle_missing(model: Any, missing: list[str], directory: Path) -> None:
    """Refuse a model with random weights; only the pooler of a bare encoder, which nothing reads, may be missing."""
    prefix = f"{model.base_model_prefix}."
    bare = not hasattr(model, model.base_model_prefix)
    harmless = {name for name in missing if bare and name.startswith("pooler.")}
    for name in harmless:
        nn.init.zeros_(model.get_parameter(name))  # transformers filled them at random; the same run, the same bytes
    lost = [name for name in missing if name not in harmless]
    if not lost:
        return
    shown = ", ".join(lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")  # noqa: PLR2004 - a glance
    if not bare and any(not name.startswith(prefix) for name in lost):
        raise InputError(
            f"{directory}: the checkpoint has no trained head for {type(model).__name__}: {shown} would be random",
            hint="begin the recipe with a train step, give a fine-tuned model with -m, or choose a task that needs no "
            "head, such as embedding",
        )
    raise InputError(
        f"{directory}: the checkpoint lacks weights that {type(model).__name__} needs: {shown}",
        hint="download or save the checkpoint again",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' log and progress bars for a while: what matters is checked and raised here."""
    verbosity = chatter.get_verbosity()
    bars = chatter.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chatter.set_verbosity(logging.CRITICAL)
        chatter.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no types here
        try:
            yield
        finally:
            chatter.set_verbosity(verbosity)
            if bars:
                chatter.enable_progress_bar()  # type: ignore[no-untyped-call]  # the same
