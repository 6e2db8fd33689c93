"""Pooling, and what a sentence encoder's directory says of it: ``modules.json`` and the files it names. No torch at import."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compressor.errors import InputError
from compressor.model.companions import MODULES

if TYPE_CHECKING:
    from torch import Tensor

FIELD = "sentence_embedding"
"""Of ``config.json``: what the directory of the dense model said, so that every stage of a run knows it."""
OUTPUT = "sentence_embedding"
"""Name of the pooled output in an exported graph, as optimum calls it."""
Mode = Literal["mean", "cls", "max"]
MODES: Mapping[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
PARTS = ("Transformer", "Pooling", "Normalize")
"""Modules that can be expressed, in their order; the last may be missing."""


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one vector per text.

    Attributes:
        mode: their mean, the first, or the largest of every coordinate.
        normalize: whether the vector is scaled to length 1.
    """

    mode: Mode
    normalize: bool

    def __str__(self) -> str:
        return f"{self.mode}, {'' if self.normalize else 'not '}normalised"


def remember(config: Any, directory: Path) -> None:
    """Write into a model's config what its directory says of pooling; nothing where there is no ``modules.json``.

    Raises:
        InputError: a file is damaged.
    """
    if (directory / MODULES).is_file():
        said = read_pooling(directory)
        setattr(config, FIELD, {"unsupported": said} if isinstance(said, str) else asdict(said))


def pooling_of(config: Any) -> Pooling:
    """Return the pooling that ``remember`` wrote into a config.

    Raises:
        InputError: the dense model's directory said nothing of it, or something else than pooling and normalisation.
    """
    said = getattr(config, FIELD, None)
    if not said:
        raise InputError(
            "pooling: the model's directory has no modules.json, which says how a sentence encoder pools",
            hint="take the sentence-transformers directory as model:, or leave pooling out",
        )
    if "unsupported" in said:
        raise InputError(
            f"pooling: the model's directory asks for {said['unsupported']}, which is not put into the graph",
            hint="leave pooling out and pool outside of the graph, e.g. with sentence-transformers' ONNX backend",
        )
    return Pooling(said["mode"], bool(said["normalize"]))


def read_pooling(directory: Path) -> Pooling | str:
    """Return how a sentence encoder's directory pools, or what in it cannot be expressed, in words.

    Raises:
        InputError: ``modules.json`` or the pooling's config is damaged.
    """
    path = directory / MODULES
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if tuple(kinds) not in {PARTS, PARTS[:2]}:
            return f"the modules {', '.join(kinds)}"
        path = directory / modules[1]["path"] / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        named = config.get("pooling_mode")  # one name, in later versions
        marks: dict[str, Any] = {"pooling_mode_mean_tokens": True, **config}  # what a file leaves out is the mean
        asked = [named] if named else [name for name, on in marks.items() if name.startswith("pooling_mode_") and on]
    except FileNotFoundError:  # a download of a hub's model that took the files of its root only
        return f"a pooling that is described in {path.relative_to(directory)}, which is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected what sentence-transformers writes: {error!r}") from error
    found = str(asked[0]) if len(asked) == 1 else ""
    mode = next((mode for name, mode in MODES.items() if found in {name, mode}), None)
    if mode is None:
        return f"the pooling {' + '.join(map(str, asked))}"
    return Pooling(mode, PARTS[2] in kinds)


def pool(hidden: Tensor, mask: Tensor, *, pooling: Mode, normalize: bool) -> Tensor:
    """Return embeddings (B, D) of hidden states (B, T, D) under a padding mask (B, T)."""
    import torch
    from torch.nn import functional

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "cls":
        pooled = hidden[:, 0]
    elif pooling == "max":
        pooled = hidden.masked_fill(weights == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
    else:
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return functional.normalize(pooled, dim=-1) if normalize else pooled
