"""Where a checkpoint comes from, a directory or the hub, and its config, checked before loading."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig

from compressor.errors import InputError, SetupError, did_you_mean, nearest_directory
from compressor.model.directory import CONFIG, checkpoint_directory

HUB_NAME = ("owner", "name")
LOGIN = "ask for access on the model's page of the hub, then: hf auth login"
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What a run reads of a repository on the hub: config, weights, tokenizer."""
UNWANTED = "[!0-9]*/*"
"""Directories of other formats; those of a sentence encoder's modules begin with a number: ``1_Pooling``."""


class UnknownModelTypeError(InputError):
    """No installed family covers the checkpoint's ``model_type``."""

    model_type: str = ""


def local_directory(model: str, revision: str | None = None) -> Path:
    """Return the directory of a checkpoint, downloading a model of the hub into its cache first.

    Args:
        model: a directory, or a model of the hub such as ``sentence-transformers/all-MiniLM-L6-v2``.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: the directory is missing or is no checkpoint, or the hub has no such model or revision.
        SetupError: the hub cannot be reached, or wants a login.
    """
    path = Path(model).expanduser() if model.startswith("~/") else Path(model)
    could_be_hub = not path.is_absolute() and not model.startswith((".", "~")) and len(path.parts) <= len(HUB_NAME)
    return _download(model, revision) if could_be_hub and not path.exists() else checkpoint_directory(path)


def _download(model: str, revision: str | None) -> Path:
    try:
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=list(WANTED), ignore_patterns=[UNWANTED])
        )
    except GatedRepoError as error:
        raise SetupError(f"{model}: the hub gives this model to logged-in users only", hint=LOGIN) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        hint = _correction(model) or "check the name; a private model needs: hf auth login"
        raise InputError(f"{model}: neither a directory nor a model of the hub", hint=hint) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{model}: the hub has no revision '{revision}' of this model") from error
    except Exception as error:  # the hub's and its HTTP client's errors share no root
        reason, hint = str(error).partition("\n")[0], "check the connection (and HF_ENDPOINT)"
        if constants.HF_HUB_OFFLINE:
            reason = f"HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not hold it"
            hint = "unset HF_HUB_OFFLINE to download it"
        meant = _correction(model)
        raise (InputError if meant else SetupError)(
            f"{model}: no such directory, and the hub cannot give the model: {reason}",
            hint=f"{meant or 'give a local checkpoint directory with -m'}, or {hint}",
        ) from error


def _correction(model: str) -> str:
    """Say which checkpoints here may have been meant by a name that is no directory's; empty where none is like it."""
    path = Path(model)
    for near in filter(None, (nearest_directory(place) for place in (path, *list(path.parents)[:-1]))):
        if (near / CONFIG).is_file():
            return f"give the directory with -m (did you mean '{near}'?)"
        below = sorted(str(found.parent) for found in near.glob(f"*/{CONFIG}"))
        if below:
            return f"give a directory with -m, such as {', '.join(below)}"
    return ""


def checkpoint_config(directory: Path, model_types: Iterable[str]) -> Any:
    """Read ``config.json`` as a transformers config.

    Raises:
        UnknownModelTypeError: it names a ``model_type`` that no installed family covers.
        InputError: it is not JSON, or has unusable values.
    """
    path = directory / CONFIG
    supported = sorted(model_types)
    try:
        model_type = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected a JSON object with a model_type: {type(error).__name__}: {error}",
            hint="name the directory that save_pretrained wrote",
        ) from error
    if model_type not in supported:
        unknown = UnknownModelTypeError(
            f"{path}: model_type '{model_type}' belongs to no installed family; supported: {', '.join(supported)}"
            f"{did_you_mean(str(model_type), supported)}",
            hint="compress components family lists the families; a plugin can add one",
        )
        unknown.model_type = str(model_type)
        raise unknown
    try:
        config = AutoConfig.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers 5 checks configs with errors of its own, 4.57 with whatever breaks
        raise InputError(f"{path}: transformers cannot read this config: {error}") from error
    if getattr(config, "is_decoder", False):
        raise InputError(
            f"{path}: is_decoder is true: expected an encoder, whose tokens see the whole text",
            hint="give an encoder with -m; where the model was trained as one, set is_decoder to false",
        )
    return config
