"""The files of a tokenizer with fewer tokens: ``tokenizer.json`` and what stands beside it, rewritten as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor_plugins.methods._tokenizer_models import TokenizerModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER, CONFIG, SENTENCE = "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"
AS_THEY_ARE = ("special_tokens_map.json",)
LENGTHS = {CONFIG: ("model_max_length", "max_length"), SENTENCE: ("max_seq_length",)}
"""Numbers of tokens that follow the positions."""
NOTE = "#version: 0.2"
"""First line of a merges.txt."""


def tokenizer_data(tokenizer: PreTrainedTokenizerBase, directory: Path) -> dict[str, Any]:
    """Return ``tokenizer.json``; where a directory has none, what transformers makes of the other files.

    Raises:
        InputError: the tokenizer is not a fast one, or its file is damaged.
    """
    path = directory / TOKENIZER
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not tokenizer.is_fast or backend is None:
        raise InputError(
            f"vocabulary: expected a fast tokenizer; got {type(tokenizer).__name__}",
            hint="save it with a tokenizer.json",
        )
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8") if path.is_file() else backend.to_str())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return data if path.is_file() else {**data, "truncation": None, "padding": None}


def rewritten_files(
    data: Mapping[str, Any], pieces: TokenizerModel, directory: Path, tokens: Sequence[int], positions: int | None
) -> dict[str, str]:
    """Return the text of every file that belongs beside a model.

    A sentencepiece model is left out: it is a binary file that nobody reads where there is a ``tokenizer.json``.

    Args:
        data: the whole ``tokenizer.json``.
        pieces: its model.
        directory: with the tokenizer's other files.
        tokens: ids that stay, in the order of their new ids.
        positions: tokens of the longest sequence; None = as before.
    """
    ids = {old: new for new, old in enumerate(tokens)}
    smaller = rewritten(data, pieces, ids, positions)
    model = smaller["model"]
    files = {TOKENIZER: json.dumps(smaller, ensure_ascii=False, indent=2) + "\n"}
    made: dict[str, Callable[[], str]] = {
        "vocab.txt": lambda: "".join(f"{pieces.names[token]}\n" for token in tokens if token in pieces.own),
        "vocab.json": lambda: json.dumps(model["vocab"], ensure_ascii=False) + "\n",
        "merges.txt": lambda: "\n".join([NOTE, *(_line(merge) for merge in model["merges"])]) + "\n",
        "added_tokens.json": lambda: _added(_read(directory / "added_tokens.json"), ids),
        CONFIG: lambda: _plain(_config(_read(directory / CONFIG), ids, positions)),
        SENTENCE: lambda: _plain(_shorter(_read(directory / SENTENCE), LENGTHS[SENTENCE], positions)),
        **{name: partial((directory / name).read_text, encoding="utf-8") for name in AS_THEY_ARE},
    }
    return files | {name: text() for name, text in made.items() if (directory / name).is_file()}


def rewritten(
    data: Mapping[str, Any], pieces: TokenizerModel, ids: Mapping[int, int], positions: int | None
) -> dict[str, Any]:
    """Return a ``tokenizer.json`` with new ids everywhere."""
    added = sorted(
        ({**token, "id": ids[token["id"]]} for token in data.get("added_tokens") or ()), key=lambda token: token["id"]
    )
    found = {
        **data,
        "added_tokens": added,
        "post_processor": _processor(data.get("post_processor"), ids),
        "model": pieces.with_only(ids),
    }
    padding, truncation = data.get("padding"), data.get("truncation")
    if padding:
        fixed = padding["strategy"]
        if isinstance(fixed, Mapping) and positions is not None:
            fixed = {kind: min(length, positions) for kind, length in fixed.items()}
        found["padding"] = {**padding, "pad_id": ids[padding["pad_id"]], "strategy": fixed}
    if truncation:
        found["truncation"] = _shorter(truncation, ("max_length",), positions)
    return found


def _processor(node: Any, ids: Mapping[int, int]) -> Any:
    """Return what frames texts with special tokens, under their new ids."""
    if not isinstance(node, Mapping):
        return node
    found = dict(node)
    if "processors" in node:
        found["processors"] = [_processor(one, ids) for one in node["processors"]]
    for end in {"sep", "cls"} & node.keys():
        found[end] = [node[end][0], ids[node[end][1]]]
    if isinstance(node.get("special_tokens"), Mapping):
        found["special_tokens"] = {
            name: {**token, "ids": [ids[one] for one in token["ids"]]} for name, token in node["special_tokens"].items()
        }
    return found


def _config(config: dict[str, Any], ids: Mapping[int, int], positions: int | None) -> dict[str, Any]:
    found = _shorter(config, LENGTHS[CONFIG], positions)
    if positions is not None:
        found["model_max_length"] = min(found.get("model_max_length") or positions, positions)
    decoder = config.get("added_tokens_decoder")
    if decoder:
        found["added_tokens_decoder"] = {str(ids[int(old)]): token for old, token in decoder.items() if int(old) in ids}
    return found


def _shorter(settings: Mapping[str, Any], names: Sequence[str], positions: int | None) -> dict[str, Any]:
    """Return settings whose lengths are at most the positions."""
    lengths = {name: settings[name] for name in names if isinstance(settings.get(name), int | float)}
    return {
        **settings,
        **{name: length if positions is None else min(length, positions) for name, length in lengths.items()},
    }


def _added(tokens: Mapping[str, int], ids: Mapping[int, int]) -> str:
    return _plain({name: ids[token] for name, token in tokens.items() if token in ids})


def _line(merge: str | Sequence[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(merge)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return found


def _plain(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
