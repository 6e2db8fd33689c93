"""Conformance of tasks."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from compressor.model.batches import collate
from compressor.model.outputs import raw_output
from compressor.plugin import Task
from compressor.plugin.components import Split
from compressor.testing.declarations import assert_declaration_conforms, asserted
from compressor.testing.tiny import tiny_model, tiny_tokenizer

SAMPLES = 8


def assert_task_conforms(task: Task, model_type: str = "bert") -> None:
    """Assert that a task keeps its contract on its own data, which should be small: a plugin author's one-line test.

    Both splits load, twice to the same rows, tokenised and no longer than ``max_length``; a tiny model's output has one
    row per sample; losses are one finite number per sample, and do not depend on what else is in the batch; the
    divergence from the model itself is zero, and not negative from another; the metric is among the metrics, finite, and
    can be computed on a part of the rows, as the bootstrap does; a glance finds nothing wrong with rows that load, and
    as many as there are.

    Args:
        task: with options that name data.
        model_type: of the tiny model that is asked.
    """
    assert_declaration_conforms(task)
    tokenizer = tiny_tokenizer()
    with asserted(task):
        rows = [dict(row) for row in task.load("validation", tokenizer)]
        assert rows, "expected validation rows"
        assert rows == [dict(row) for row in task.load("validation", tokenizer)], "the rows differ when loaded again"
        for row in [*rows, *task.load("train", tokenizer)]:
            assert 0 < len(row["input_ids"]) <= task.max_length, f"expected 1 to {task.max_length} tokens"
            assert len(row["attention_mask"]) == len(row["input_ids"]), "expected a padding mask of every token"
            assert task.label_free or "labels" in row, "expected labels, or label_free = True"
        _assert_glances(task, tokenizer)
        models = [_model(task, model_type, rows, seed=seed) for seed in (0, 1)]
        _assert_numbers(task, models, rows[:SAMPLES])
        _assert_metrics(task, models, rows)


def _assert_glances(task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        glance = task.glance(split)
        assert not glance.problems, f"glance: expected no problems of {split} rows that load; got {glance.problems}"
        count = len(task.load(split, tokenizer))
        assert glance.samples in {None, count}, f"glance: expected {count} samples, or None; got {glance.samples}"


def _model(task: Task, model_type: str, rows: Sequence[Mapping[str, Any]], *, seed: int) -> torch.nn.Module:
    count = task.num_labels
    if task.head == "feature-extraction":
        return tiny_model(model_type, num_labels=None, seed=seed)
    if count is None:
        numbered = [row["labels"] for row in rows if task.head == "sequence-classification" and "labels" in row]
        count = max(2, int(np.max(numbered, initial=1)) + 1)
    return tiny_model(model_type, head=task.head, num_labels=count, seed=seed)


def _assert_numbers(task: Task, models: Sequence[torch.nn.Module], rows: Sequence[Mapping[str, Any]]) -> None:
    batch = collate(rows, tiny_tokenizer())
    with torch.no_grad():
        z, other = (task.output(raw_output(model, batch), batch) for model in models)
        assert len(z) == len(rows), f"output: expected {len(rows)} rows; got {len(z)}"
        same, far = task.divergences(z, z), task.divergences(other, z)
        assert tuple(same.shape) == (len(rows),), f"divergences: expected ({len(rows)},); got {tuple(same.shape)}"
        assert float(same.abs().max()) < 1e-5, "divergences: expected 0 of a model from itself"  # noqa: PLR2004 - rounding
        assert float(far.min()) > -1e-5, "divergences: expected no negative number"  # noqa: PLR2004 - rounding
        scalars = task.curvature(z, draws=2, generator=np.random.default_rng(0))
        assert len(scalars) == len(rows) and scalars.ndim == 2, f"curvature: expected ({len(rows)}, K)"  # noqa: PLR2004, PT018 - one claim
        weights = task.token_weights(batch)
        assert weights.shape == batch["attention_mask"].shape, "token_weights: expected one for every token"
        if task.label_free:
            return
        losses = task.sample_losses(z, batch)
        assert tuple(losses.shape) == (len(rows),), f"sample_losses: expected ({len(rows)},); got {tuple(losses.shape)}"
        assert bool(losses.isfinite().all()), "sample_losses: expected finite numbers"
        half = {name: value[: len(rows) // 2] for name, value in batch.items()}
        alone = task.sample_losses(z[: len(rows) // 2], half)
        torch.testing.assert_close(alone, losses[: len(rows) // 2], msg="a sample's loss depends on the others")


def _assert_metrics(task: Task, models: Sequence[torch.nn.Module], rows: Sequence[Mapping[str, Any]]) -> None:
    outputs = [_outputs(task, model, rows) for model in models]
    table = task.rows(outputs[1], outputs[0], rows)
    found = task.metrics(table)
    assert task.metric in found, f"metrics: expected '{task.metric}' among {sorted(found)}"
    assert all(np.isfinite(value) for value in found.values()), f"metrics: expected finite numbers; got {found}"
    count = len(next(iter(table.values())))
    assert {len(column) for column in table.values()} == {count}, "rows: expected columns of one length"
    drawn = np.random.default_rng(0).integers(0, count, size=count)
    assert task.metric in task.metrics({name: np.asarray(column)[drawn] for name, column in table.items()})


def _outputs(task: Task, model: torch.nn.Module, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    found = []
    for start in range(0, len(rows), SAMPLES):
        batch = collate(rows[start : start + SAMPLES], tiny_tokenizer())
        with torch.no_grad():
            found.append(task.output(raw_output(model, batch), batch).numpy())
    return np.concatenate(found)
