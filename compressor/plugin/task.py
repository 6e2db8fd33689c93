"""The contract of a task: data, the output that matters, and the metric. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from compressor.plugin.component import Component
from compressor.plugin.glance import Glance

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Head = Literal["sequence-classification", "token-classification", "question-answering", "feature-extraction"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Split = Literal["train", "validation"]


class Task(Component):
    """Data, the model's output that matters, and the metric.

    ``z`` below is the task's output: class logits ``(B, C)``, a regression value ``(B, 1)``, an embedding ``(B, D)``; for
    question answering ``(B, 2, max_length)``, the start and the end logit of every position, and for token
    classification ``(B, max_length, C)``, where the task overrides what the defaults here do for ``(B, C)``.
    """

    kind: ClassVar[str] = "task"
    head: ClassVar[Head]
    label_free: ClassVar[bool] = False

    max_length: int = Field(default=128, ge=4, description="Tokens a sample is truncated to.")

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """Name of the metric that gates compare; higher is better."""

    @property
    def num_labels(self) -> int | None:
        """Outputs of the classification head, when the task knows; 1 = regression."""
        return None

    @property
    def problem_type(self) -> ProblemType | None:
        """What the outputs of a classification head mean, as ``problem_type`` in a checkpoint's config; None accepts any."""
        return None

    @property
    def pairs(self) -> bool:
        """Whether a sample is two texts, such as a question and its context."""
        return False

    @abc.abstractmethod
    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return tokenised rows: ``input_ids``, ``attention_mask``, (``token_type_ids``,) and ``labels`` if any.

        Of further columns ``window``, two token numbers, joins ``labels`` in the batches; ``example``, a number, says
        which rows, one behind the other, are parts of one example: verification draws all of them or none, and a
        trimmed vocabulary finds the train rows again by it. ``rows`` sees every column.

        Args:
            split: which rows.
            tokenizer: of the checkpoint.
            label2id: class ids by name in the checkpoint's config: label names in the data follow its order.
        """

    def glance(self, split: Split, *, label2id: Mapping[str, int] | None = None) -> Glance:
        """Return what can be told of a split at once, without torch: ``compress check`` asks. Here: nothing.

        Args:
            split: which rows.
            label2id: class ids by name in the checkpoint's config; None = not known.
        """
        del split, label2id
        return Glance()

    def pinned(self) -> Mapping[str, str]:
        """Return what the lock file says of where the rows come from, e.g. a commit; their hashes decide."""
        return {}

    def pinned_to(self, inputs: Mapping[str, Any]) -> Self:
        """Return the task that reads what ``pinned`` told, with the same options; itself, as here, where that is one.

        Args:
            inputs: of a lock file, what ``pinned`` told among them.
        """
        del inputs
        return self

    def output(self, raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return z, shape (B, C), from the model's raw output: logits as they are, unless the task says otherwise.

        Args:
            raw: logits (B, C), logits of every token (B, T, C), start and end logits (B, T, 2), or hidden states
                (B, T, D), as the head gives them.
            batch: ``input_ids`` and friends (B, T), ``labels``, ``window``.
        """
        return raw

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of every sample, shape (B,). Label-free tasks have none."""
        raise TypeError(f"task '{self.name}' has no labels, hence no loss")

    def divergences(self, z: Tensor, dense: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Return how far every sample's output is from the dense model's, shape (B,), in nats for classes.

        ``temperature**2 * KL(softmax(dense / temperature) || softmax(z / temperature))`` over the classes; the squared
        distance where there are none (one output, or a task without labels).

        Args:
            z: output of the model, shape (B, C).
            dense: output of the dense model, the same shape.
            temperature: softens both sides, positive.
        """
        if self.label_free or z.shape[1] == 1:
            return (z - dense).square().sum(dim=1)
        log_p, log_q = ((output / temperature).log_softmax(dim=1) for output in (dense, z))
        divergences: Tensor = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)
        return divergences

    def curvature(
        self, z: Tensor, *, temperature: float = 1.0, draws: int = 1, generator: np.random.Generator
    ) -> Tensor:
        """Return scalars of every sample, shape (B, K), that stand for the Hessian of ``divergences`` at the dense model.

        With gradients ``g_k`` of the K scalars, ``sum_k g_k g_k'`` is that Hessian; in expectation over the generator
        where something is drawn. The divergence itself has no gradient there. For C classes K = C - 1: the columns of
        the Cholesky factor of ``diag(p) - p p'``, known in closed form. For distances: random sign projections.

        Args:
            z: output of the dense model, shape (B, C).
            temperature: of the divergence.
            draws: K, where projections are drawn.
            generator: of the draws; every row takes its own, in the order of the rows.
        """
        scalars: Tensor
        if z.shape[1] == 1:
            return z * 2**0.5
        if self.label_free:
            signs = generator.integers(0, 2, size=(len(z), draws, z.shape[1])) * 2.0 - 1.0
            scalars = (z.new_tensor(signs) * z.unsqueeze(1)).sum(dim=2) * (2 / draws) ** 0.5
            return scalars
        p = (z.detach() / temperature).softmax(dim=1)
        tail = p.flip(1).cumsum(dim=1).flip(1).clamp_min(1e-30)  # p_j + ... + p_C
        mean_after = (p * z).flip(1).cumsum(dim=1).flip(1)[:, 1:] / tail[:, 1:]
        scalars = (p[:, :-1] * tail[:, 1:] / tail[:, :-1]).sqrt() * (z[:, :-1] - mean_after)
        return scalars

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how much each token of the *last* layer matters to z, shape (B, T): the padding mask by default."""
        return batch["attention_mask"]

    def rows(
        self, outputs: np.ndarray, dense: np.ndarray, samples: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, np.ndarray]:
        """Return the table that the metrics are computed on, columns of shape (m, ...): resampling it is a bootstrap.

        A row of it is a sample, or an example where several samples are parts of one. Where it has the columns
        ``predictions`` and ``correct`` (m,), booleans, the comparison reports whose prediction changed, and how.

        Args:
            outputs: z of the model under test, shape (n, C).
            dense: z of the dense model on the same samples, shape (n, C).
            samples: n of the rows that ``load`` returned, every column of them.
        """
        import numpy as np

        labels = np.array([sample["labels"] for sample in samples])  # a task without labels overrides this method
        if outputs.shape[1] == 1:
            return {"outputs": outputs, "labels": labels, "predictions": outputs[:, 0]}
        predictions = outputs.argmax(axis=1)
        return {"outputs": outputs, "labels": labels, "predictions": predictions, "correct": predictions == labels}

    @abc.abstractmethod
    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return every metric over the given rows, ``self.metric`` among them."""
