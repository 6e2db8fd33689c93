"""Files of map scorers: the released ones, and ours with their provenance."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor.errors import InputError
from compressor_plugins.methods._map_scorer import MapScorer


def load_scorer(path: Path) -> tuple[MapScorer, dict[str, Any]]:
    """Read a scorer: safetensors of ours, or a released checkpoint (a pickle of tensors, which is read as weights only).

    Returns:
        The scorer, in eval mode on the CPU, and what the file says of how it was made; nothing, for a released one.

    Raises:
        InputError: the file is missing, is neither, or does not hold the 26 tensors; says which is wrong, and how.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such scorer file")
    tensors, provenance = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_weights(path), {})
    scorer = MapScorer()
    _check_tensors(path, tensors, scorer.state_dict())
    scorer.load_state_dict(dict(tensors))
    return scorer.eval().requires_grad_(False), provenance


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
        provenance: dict[str, Any] = json.loads(metadata.get("provenance", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a scorer in a safetensors file: {error}") from error
    return tensors, provenance


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what is not tensors is refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: expected a scorer: a state dict of torch with 26 tensors and nothing else in it; {reason}",
            hint="give a file of the released scorers (base.bin, large.bin), or the scorer.safetensors of a training",
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path}: expected a mapping of names to tensors, got {type(found).__name__}")
    return dict(found)


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    strays = sorted(tensors.keys() ^ expected.keys())
    if strays:
        kind = "lacks" if strays[0] in expected else "has an unknown"
        raise InputError(f"{path}: expected the {len(expected)} tensors of a scorer; the file {kind} '{strays[0]}'")
    for name, like in expected.items():
        found = tensors[name]
        if found.shape != like.shape or found.dtype != like.dtype:
            raise InputError(
                f"{path}: '{name}': expected {like.dtype} of shape {tuple(like.shape)}, "
                f"got {found.dtype} of shape {tuple(found.shape)}",
                hint="scores in half precision are other scores; the file must hold float32 weights of width 8",
            )


def save_scorer(scorer: MapScorer, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write a scorer as safetensors, with how it was made in the file's metadata: one key, so that equal files are equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in scorer.state_dict().items()}
    save_file(tensors, str(path), {"provenance": json.dumps(dict(provenance), sort_keys=True)})
