"""Sessions on tiny models: what a method, a loss and an exporter are given, without a recipe and without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional

from compressor.plugin import ModelFamily, Registry, Task
from compressor.run.data import Calibration
from compressor.run.load import families
from compressor.run.session import Session
from compressor.testing.tiny import WORDS, tiny_model, tiny_tokenizer


class TinyLabels(Task):
    """Two classes, read off the first token."""

    name: ClassVar[str] = "tiny-labels"
    head: ClassVar[Any] = "sequence-classification"

    @property
    def metric(self) -> str:
        """Accuracy."""
        return "accuracy"

    def load(self, split: Any, tokenizer: Any, *, label2id: Any = None) -> Any:
        """Return rows of random words, the same for both splits."""
        del split, label2id
        return Dataset.from_list(word_rows(tokenizer, labels=not self.label_free))

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the cross entropy of every sample, shape (B,)."""
        return functional.cross_entropy(z, batch["labels"], reduction="none")

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for the first token and 0 for the others, shape (B, T)."""
        weights = torch.zeros_like(batch["attention_mask"])
        weights[:, 0] = 1
        return weights

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the accuracy."""
        return {"accuracy": float(np.mean(rows["correct"]))}


class TinyTexts(Task):
    """Mean-pooled, normalised embeddings; no labels."""

    name: ClassVar[str] = "tiny-texts"
    head: ClassVar[Any] = "feature-extraction"
    label_free: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        """Cosine to the dense model's embeddings."""
        return "cosine"

    def load(self, split: Any, tokenizer: Any, *, label2id: Any = None) -> Any:
        """Return rows of random words, the same for both splits."""
        del split, label2id
        return Dataset.from_list(word_rows(tokenizer, labels=not self.label_free))

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings, shape (B, D)."""
        mask = batch["attention_mask"].unsqueeze(2)
        return functional.normalize((raw * mask).sum(dim=1) / mask.sum(dim=1), dim=1)

    def rows(self, outputs: np.ndarray, dense: np.ndarray, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the cosines, shape (n,)."""
        del samples
        return {"cosines": (outputs * dense).sum(axis=1)}

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the mean cosine."""
        return {"cosine": float(np.mean(rows["cosines"]))}


def tiny_session(model_type: str = "bert", *, labels: bool = True, **options: Any) -> Session:
    """Return a session on a tiny model of an installed family.

    Args:
        model_type: as in the model's config.
        labels: whether the rows have labels; otherwise the model is a bare encoder.
        options: of ``session_on``.
    """
    model = tiny_model(model_type, num_labels=2 if labels else None)
    family = families(Registry.load())[model_type]
    return session_on(model, family, TinyLabels() if labels else TinyTexts(), **options)


def session_on(  # noqa: PLR0913 - a builder for tests
    model: nn.Module,
    family: ModelFamily,
    task: Task,
    *,
    batch_size: int = 8,
    count: int = 40,
    run_dir: Path = Path("unused"),
) -> Session:
    """Return a session on a model, with rows of random words.

    Args:
        model: in eval mode.
        family: the table of its architecture.
        task: says whether the rows have labels, 0 and 1 in turn.
        batch_size: of the calibration batches.
        count: of rows, which are calibration and train rows alike.
        run_dir: where a method that trains keeps its checkpoints.
    """
    tokenizer = tiny_tokenizer()
    rows = word_rows(tokenizer, count, labels=not task.label_free)
    return Session(
        plan=named_plan("tiny"),
        run_dir=run_dir,
        device=torch.device("cpu"),
        model=model.requires_grad_(False),
        teacher=model,
        tokenizer=tokenizer,
        family=family,
        task=task,
        calibration=Calibration(rows, batch_size, tokenizer),
        source=Path("unused"),
        train_rows=rows,
    )


def word_rows(tokenizer: Any, count: int = 40, *, labels: bool) -> list[dict[str, Any]]:
    """Return tokenised rows of 2 to 14 random words, with labels 0 and 1 in turn where they are asked for."""
    draw = np.random.default_rng(0)
    rows = []
    for index in range(count):
        encoded = tokenizer(" ".join(draw.choice(WORDS, size=draw.integers(2, 15))), return_token_type_ids=False)
        rows.append({**encoded, "labels": index % 2} if labels else {**encoded})
    return rows


def named_plan(model: str) -> Any:
    """Return as much of a plan as methods read."""
    return SimpleNamespace(recipe=SimpleNamespace(seed=0, model=model), steps=(SimpleNamespace(slug="01-step"),))
