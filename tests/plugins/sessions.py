"""Sessions on tiny models, for tests of pruning methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compressor.model import PrunableGroup, shrink
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, Task
from compressor.run.data import Calibration
from compressor.run.session import Session
from compressor.testing import WORDS, tiny_model, tiny_tokenizer
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.tasks._classification import ClassificationTask

FAMILIES: dict[str, Any] = {"bert": Bert(), "roberta": Bert(), "electra": Bert(), "distilbert": DistilBert()}


class Labelled(ClassificationTask):
    """Two classes, read off the first token."""

    name = "labelled"

    def load(self, split: Any, tokenizer: Any, **_: Any) -> Any:
        raise NotImplementedError


class LabelFree(Task):
    """Mean-pooled, normalised embeddings."""

    name = "label-free"
    head = "feature-extraction"
    label_free = True
    metric: ClassVar[str] = "cosine"

    def load(self, split: Any, tokenizer: Any, **_: Any) -> Any:
        raise NotImplementedError

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"].unsqueeze(2)
        return nn.functional.normalize((raw * mask).sum(dim=1) / mask.sum(dim=1), dim=1)

    def metrics(self, rows: Any) -> dict[str, float]:
        raise NotImplementedError


def named_plan(model: str) -> Any:
    """Return as much of a plan as methods read."""
    return SimpleNamespace(recipe=SimpleNamespace(seed=0, model=model), steps=(SimpleNamespace(slug="01-step"),))


def session_on(  # noqa: PLR0913 - a builder for tests
    model: nn.Module, family: Any, task: Task, *, batch_size: int = 8, count: int = 40, run_dir: Path = Path("unused")
) -> Session:
    tokenizer, draw = tiny_tokenizer(), np.random.default_rng(0)
    rows = []
    for index in range(count):
        encoded = tokenizer(" ".join(draw.choice(WORDS, size=draw.integers(2, 15))), return_token_type_ids=False)
        rows.append({**encoded} if task.label_free else {**encoded, "labels": index % 2})
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


def labelled(model_type: str = "bert", **options: Any) -> Session:
    return session_on(tiny_model(model_type), FAMILIES[model_type], Labelled(), **options)


def label_free(**options: Any) -> Session:
    return session_on(tiny_model(num_labels=None), Bert(), LabelFree(), **options)


def make_twin(model: nn.Module, group: PrunableGroup, *, twin: int, of: int) -> None:
    """Cut a neuron in two unequal halves: ``twin`` becomes a thousandth of ``of``, which keeps the rest."""
    producer: Any = model.get_submodule(group.producers[0].module)
    consumer: Any = model.get_submodule(group.consumer.module)
    with torch.no_grad():
        producer.weight[twin], producer.bias[twin] = producer.weight[of].clone(), producer.bias[of].clone()
        share = consumer.weight[:, of].clone()
        consumer.weight[:, twin], consumer.weight[:, of] = 0.001 * share, 0.999 * share


def assert_lossless_by_tuning(session: Session, pruned: Pruned) -> None:
    """Assert that the re-fitted model gives what the dense one does, and the same masks without weights do not."""
    smaller = shrink(session.model, session.family, pruned.masks, pruned.weights)
    plain = shrink(session.model, session.family, pruned.masks)
    for batch in session.calibration.batches(session.device):
        with torch.no_grad():
            dense, found, untuned = (raw_output(model, batch) for model in (session.model, smaller, plain))
        assert float((dense - found).abs().max()) < 1e-8
        assert float((dense - untuned).abs().max()) > 1e-6
