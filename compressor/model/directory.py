"""A checkpoint's directory: config, weights and vocabulary are there, each file whole. Importing this module does not import torch."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from compressor.errors import InputError, nearest_directory
from compressor.model.companions import VOCABULARIES

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def checkpoint_directory(path: Path) -> Path:
    """Return ``path``, having seen that it is a checkpoint directory.

    Raises:
        InputError: it is missing, or has no ``config.json``.
    """
    if not path.exists():
        near = nearest_directory(path)
        guess = f"; did you mean '{near}'?" if near else ""
        raise InputError(f"{path}: no such directory{guess}", hint="correct the path given as model: or with -m")
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: expected a checkpoint directory, found no {CONFIG} in it", hint=_instead(path))
    return path


def _instead(path: Path) -> str:
    """Say what to do about a directory without a config: what is in it tells."""
    if (path / "adapter_config.json").is_file():
        return (
            "this is an adapter (PEFT), which changes a model that is elsewhere; merge the two: "
            "AutoPeftModelForSequenceClassification.from_pretrained(...).merge_and_unload().save_pretrained(...)"
        )
    below = sorted(str(found.parent) for found in path.glob(f"*/{CONFIG}") if list(found.parent.glob("*.safetensors")))
    if below:
        return f"checkpoints are below it: {', '.join(below)}"
    return "name the directory that save_pretrained wrote, with config.json and model.safetensors"


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, each opened once to see that it is whole.

    Raises:
        InputError: there is none, one is missing, or one is truncated or corrupt.
    """
    files = [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        try:
            shards = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            files = [directory / name for name in sorted(set(shards))]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{directory / INDEX}: expected a JSON object with a weight_map") from error
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file; weights are loaded from safetensors only", hint=_advice(directory))
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file}: the file is truncated or not safetensors: {error}", hint="download or save it again"
            ) from error
    return files


def _advice(directory: Path) -> str:
    if not list(directory.glob("pytorch_model*.bin")):
        return "download or save the checkpoint again"
    return (
        'convert pytorch_model.bin, if you trust where it comes from: python -c "from transformers import '
        "AutoModelForSequenceClassification as A; "
        f"A.from_pretrained('{directory}', use_safetensors=False).save_pretrained('{directory}')\""
    )


def check_vocabulary(directory: Path) -> None:
    """Check that a tokenizer's files are there.

    Raises:
        InputError: none of them is.
    """
    if not any((directory / name).is_file() for name in VOCABULARIES):
        # transformers 5 would make up a tokenizer without a vocabulary, to which every word is unknown.
        raise InputError(
            f"{directory}: no tokenizer: none of {', '.join(VOCABULARIES)} is there",
            hint="copy the tokenizer files into the checkpoint directory",
        )
