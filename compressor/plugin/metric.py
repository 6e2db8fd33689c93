"""The contract of a metric of one's own. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin.component import Component

if TYPE_CHECKING:
    import numpy as np


class Metric(Component):
    """One figure of a model's answers; in a recipe ``verify: {metric: NAME}``, and the gate ``metric_drop`` is of it."""

    kind: ClassVar[str] = "metric"

    @abc.abstractmethod
    def compute(self, rows: Mapping[str, np.ndarray]) -> float:
        """Return the figure, which is reported under the component's name; higher is better.

        A bootstrap calls it thousands of times, so it counts rather than loops.

        Args:
            rows: the task's table, columns of shape (m, ...); ``docs/tasks.md`` says which a task has. Of classification
                ``outputs`` (m, C), ``labels`` (m,), ``predictions`` (m,) and ``correct`` (m,).

        Raises:
            InputError: the task's table has no such column.
        """
