"""Fewer rows in the lookup tables: of the tokens that stay, and of the positions that are read. Everything else is as it was.

A model trimmed so is a plain checkpoint to everybody: ``vocab_size`` and ``max_position_embeddings`` are fields of
transformers' own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError, InputError
from compressor.model.outputs import max_positions

SUFFIX = "_token_id"
"""Fields of a config that hold token ids end so."""


def trimmed(model: nn.Module, tokens: Sequence[int], positions: int | None = None) -> nn.Module:
    """Return a copy of a model that knows the given tokens only, and reads at most so many positions; in eval mode.

    Args:
        model: with input embeddings and without output embeddings.
        tokens: ids that stay, in the order of their new ids.
        positions: tokens of the longest sequence; None leaves positions as they are.

    Raises:
        InputError: the model has no such table, has fewer positions, or shares its embeddings with an output layer.
        CompressorError: a token is missing that the model's config names, or one that its positions are counted from.
    """
    check(model, positions)
    result = copy.deepcopy(model)
    ids = {old: new for new, old in enumerate(tokens)}
    _trim_tokens(result, ids)
    if positions is not None:
        _trim_positions(result, positions)
    return result.eval()


def check(model: nn.Module, positions: int | None) -> None:
    """Check that a model's tables can be trimmed.

    Raises:
        InputError: they cannot; says why.
    """
    plain: Any = model
    if plain.get_output_embeddings() is not None:
        raise InputError(
            f"{type(model).__name__} has output embeddings, one row a token: only encoders with a task's head are trimmed"
        )
    if positions is None:
        return
    if _position_table(model) is None:
        raise InputError(
            f"{type(model).__name__} has no table of absolute positions that could be trimmed",
            hint="leave positions out: nothing is stored per position",
        )
    longest = max_positions(model)
    if positions > longest:
        raise InputError(f"positions: expected at most {longest}, which the model has; got {positions}")


def first_position(model: nn.Module) -> int:
    """Return the row of the table that a sequence's first token reads: 0, or in RoBERTa the one behind the padding's id."""
    found = _position_table(model)
    return 0 if found is None or found[1].padding_idx is None else found[1].padding_idx + 1


def named_tokens(model: nn.Module) -> dict[int, str]:
    """Return the ids of tokens that a model's config names, in a field of its own or in a list, with the field's name."""
    plain: Any = model
    known = plain.get_input_embeddings().num_embeddings
    fields = ((name, value) for name, value in plain.config.to_dict().items() if name.endswith(SUFFIX))
    each = ((name, one) for name, value in fields for one in (value if isinstance(value, list) else [value]))
    return {one: name for name, one in each if isinstance(one, int) and 0 <= one < known}


def _trim_tokens(model: nn.Module, ids: Mapping[int, int]) -> None:
    plain: Any = model
    table: nn.Embedding = plain.get_input_embeddings()
    pad = table.padding_idx
    positions = _position_table(model)
    counted_from = None if positions is None else positions[1].padding_idx
    if any(one is not None and one not in ids for one in (pad, counted_from)):
        raise CompressorError(f"token {pad} must stay: it is the padding of {type(model).__name__}")
    if counted_from is not None and ids[counted_from] != counted_from:
        raise CompressorError(
            f"{type(model).__name__} counts positions from the id of its padding, {counted_from}; it would become "
            f"{ids[counted_from]}",
            hint="tokens with smaller ids must stay",
        )
    for token, field in named_tokens(model).items():
        if token not in ids:
            raise CompressorError(f"token {token} must stay: config.json names it as {field}")
    rows = torch.tensor(sorted(ids, key=ids.__getitem__), device=table.weight.device)
    new = _selected(table, rows, None if pad is None else ids[pad])
    name = next(name for name, module in model.named_modules() if module is table)
    model.set_submodule(name, new)
    config = plain.config
    config.vocab_size = len(ids)
    for field, value in config.to_dict().items():
        if field.endswith(SUFFIX):
            setattr(
                config,
                field,
                [ids.get(one, one) for one in value] if isinstance(value, list) else ids.get(value, value),
            )


def _position_table(model: nn.Module) -> tuple[str, nn.Embedding] | None:
    """Return the table of absolute positions with its name, where positions enter nowhere else."""
    config: Any = model.config
    relative = getattr(config, "relative_attention", False)
    if relative or getattr(config, "position_embedding_type", None) not in {None, "absolute"}:
        return None
    tables = ((name, one) for name, one in model.named_modules() if name.endswith("position_embeddings"))
    return next(((name, table) for name, table in tables if isinstance(table, nn.Embedding)), None)


def _trim_positions(model: nn.Module, positions: int) -> None:
    found = _position_table(model)
    if found is None:
        raise CompressorError("the model has no table of positions")
    name, table = found
    whole = table.num_embeddings
    count = positions + whole - max_positions(model)  # RoBERTa's begin behind its padding
    new = _selected(table, torch.arange(count, device=table.weight.device), table.padding_idx)
    model.set_submodule(name, new)
    parent = model.get_submodule(name.rpartition(".")[0])
    for buffer, tensor in list(parent.named_buffers(recurse=False)):
        if tensor.shape[-1:] == (whole,):  # the numbers of all positions, and their token types
            setattr(parent, buffer, tensor[..., :count].clone())
    config: Any = model.config
    config.max_position_embeddings = count


def _selected(table: nn.Embedding, rows: torch.Tensor, padding: int | None) -> nn.Embedding:
    weight = nn.Parameter(table.weight.detach().index_select(0, rows), requires_grad=table.weight.requires_grad)
    new = nn.Embedding(len(rows), table.embedding_dim, padding_idx=padding, _weight=weight)
    new.weight = weight
    return new.train(table.training)
