"""What tasks with a classification head share. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin import Task
from compressor.plugin.components import Head, ProblemType

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def first_token(batch: Mapping[str, Tensor]) -> Tensor:
    """Return 1 for the first token of every row and 0 for the others, shape (B, T)."""
    import torch

    weights = torch.zeros_like(batch["attention_mask"])
    weights[:, 0] = 1
    return weights


class ClassificationTask(Task):
    """Rows with labels, and a head that reads the first token."""

    head: ClassVar[Head] = "sequence-classification"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics, the one that gates compare first."""
        return ("accuracy",)

    @property
    def problem_type(self) -> ProblemType:
        """Classes, or a score where there is one output."""
        return "regression" if self.num_labels == 1 else "single_label_classification"

    @property
    def metric(self) -> str:
        """Name of the metric that gates compare."""
        return self.metric_names[0]

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return cross entropy, or the squared error of a regression, of every sample, shape (B,)."""
        from torch.nn import functional

        if z.shape[1] == 1:
            return (z[:, 0] - batch["labels"]).square()
        return functional.cross_entropy(z, batch["labels"], reduction="none")

    def token_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for the first token and 0 for the others, shape (B, T): the heads of all families read only it."""
        return first_token(batch)

    def metrics(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return every metric of ``metric_names``."""
        from compressor_plugins.tasks._metrics import METRICS

        return {name: METRICS[name](rows["predictions"], rows["labels"]) for name in self.metric_names}
