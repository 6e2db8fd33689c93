"""Sessions on tiny models, for tests of pruning methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.model import PrunableGroup, shrink
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned
from compressor.run.session import Session
from compressor.testing import TinyTexts, session_on, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.tasks._classification import ClassificationTask

FAMILIES: dict[str, Any] = {"bert": Bert(), "roberta": Bert(), "electra": Bert(), "distilbert": DistilBert()}


class Labelled(ClassificationTask):
    """Two classes, read off the first token."""

    name = "labelled"

    def load(self, split: Any, tokenizer: Any, **_: Any) -> Any:
        raise NotImplementedError


def labelled(model_type: str = "bert", **options: Any) -> Session:
    return session_on(tiny_model(model_type), FAMILIES[model_type], Labelled(), **options)


def label_free(**options: Any) -> Session:
    return session_on(tiny_model(num_labels=None), Bert(), TinyTexts(), **options)


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
