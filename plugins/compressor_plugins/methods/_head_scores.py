"""Label-free scores of heads, each a mean over sentences: what a head adds, and what is lost without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model import PrunableGroup, masked
from compressor.progress import track
from compressor.prune import gate_gradients, record, resumed, watched
from compressor_plugins.methods._relations import relation_loss
from compressor_plugins.methods._sentences import sentence_vectors

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._sentences import Sentences
    from compressor_plugins.methods.heads import Heads

Batch = Mapping[str, Tensor]


def head_scores(method: Heads, session: Session, rows: Sentences) -> Scores:
    """Return the scores of the method's criterion, per group name, shape (units,), on the CPU."""
    match method.criterion:
        case "relation":
            return relation_changes(rows)
        case "output-norm":
            return output_norms(rows)
        case "curvature":
            return curvatures(session, rows)
        case "random":
            return random_scores(rows, session.seed)


def random_scores(rows: Sentences, seed: int) -> Scores:
    """Return random numbers in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.units, generator=generator, dtype=torch.float64) for group in rows.groups}


@torch.no_grad()
def output_norms(rows: Sentences) -> Scores:
    """Return the mean norm of what each head adds to the hidden states, over the real tokens of all sentences."""
    totals = {group.name: torch.zeros(group.units, dtype=torch.float64) for group in rows.groups}
    grams = {group.name: _output_gram(rows.model, group) for group in rows.groups}
    tokens = 0
    for batch in track(rows.batches(), "Output norms", total=_batches(rows)):
        with watched(rows.model, rows.groups) as seen:
            sentence_vectors(rows.model, batch, pair=rows.pair)
        real = batch["attention_mask"].bool()
        tokens += int(real.sum())
        for group in rows.groups:
            values = seen[group.name].activations[real].reshape(-1, group.units, group.width)
            squares = torch.einsum("nhi,hij,nhj->nh", values, grams[group.name], values)
            totals[group.name] += squares.clamp_min(0).sqrt().double().sum(dim=0).cpu()
    return {name: total / tokens for name, total in totals.items()}


def _output_gram(model: nn.Module, group: PrunableGroup) -> Tensor:
    """Return ``W_o' W_o`` of every head's columns, shape (units, width, width)."""
    weight = model.get_parameter(f"{group.consumer.module}.weight").detach()
    columns = weight.reshape(-1, group.units, group.width).transpose(0, 1)
    gram: Tensor = columns.transpose(1, 2) @ columns
    return gram


@torch.no_grad()
def relation_changes(rows: Sentences) -> Scores:
    """Return the relation loss without each head, the mean over batches by their sentences.

    Layers below the head are not run again. Of a batch with an odd number of sentences one is left out.

    Raises:
        InputError: no batch has two sentences.
    """
    totals = {group.name: torch.zeros(group.units, dtype=torch.float64) for group in rows.groups}
    count = 0
    for batch in track(rows.batches(), "Without each head", total=_batches(rows)):
        even = len(batch["input_ids"]) // 2 * 2
        if even:
            count += even
            part = {name: tensor[:even] for name, tensor in batch.items()}
            for name, losses in _without_each(rows, part).items():
                totals[name] += even * losses
    if not count:
        raise InputError("criterion: relation compares sentences of a batch; expected calibration.batch_size 2 or more")
    return {name: (total / count).clamp_min(0) for name, total in totals.items()}


def _without_each(rows: Sentences, batch: Batch) -> dict[str, Tensor]:
    """Return the relation loss of one batch without each head, shape (units,)."""
    layers = [group.layer for group in rows.groups]
    read: dict[str, Tensor] = {}
    vectors: list[Tensor] = []

    def run(model: nn.Module, batch: Batch) -> None:
        hooks = [
            model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
            for name in layers
        ]
        vectors.append(sentence_vectors(model, batch, pair=rows.pair))
        for hook in hooks:
            hook.remove()

    _, calls = record(rows.model, layers, batch, run)
    found = {}
    for group in rows.groups:
        losses = torch.zeros(group.units, dtype=torch.float64)
        with resumed(rows.model, calls, group.layer, read[group.layer]):
            for head in range(group.units):
                keep = torch.arange(group.units, device=rows.device) != head
                with masked(rows.model, [group], {group.name: keep}):
                    now = sentence_vectors(rows.model, batch, pair=rows.pair)
                losses[head] = float(relation_loss(now, vectors[0], pair=rows.pair))
        found[group.name] = losses
    return found


def curvatures(session: Session, rows: Sentences) -> Scores:
    """Return the curvature of the divergence from the dense output at each head's gate, the mean over sentences."""
    generator = np.random.default_rng(session.seed)

    def signals(raw: Tensor, batch: Any) -> Tensor:
        return session.task.curvature(session.task.output(raw, batch), generator=generator)

    batches = track(rows.batches(), "Curvature", total=_batches(rows))
    gradients = gate_gradients(rows.model, rows.groups, batches, signals)
    return {name: part.double().square().sum(dim=1).mean(dim=0) for name, part in gradients.items()}


def _batches(rows: Sentences) -> int:
    return len(range(0, len(rows.rows), rows.batch_size))
