"""How well scores tell two classes apart, whatever the threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.errors import InputError
from compressor.plugin import Metric, hookimpl

if TYPE_CHECKING:
    import numpy as np

    from compressor.plugin import Component


class RocAuc(Metric):
    """Area under the ROC curve of one class against the others (Fawcett 2006, https://doi.org/10.1016/j.patrec.2005.10.010).

    The probability that a row of the class scores higher than one that is not of it, ties counting half; the score is the
    class's logit less the others' log-sum-exp. For tasks with classes, multi-label ones included, where a service sets
    its own threshold. 0.5 where the rows have only one side.
    """

    name: ClassVar[str] = "roc-auc"

    of: int = Field(default=1, ge=0, description="Id of the class.")

    def compute(self, rows: Mapping[str, np.ndarray]) -> float:
        """Return it, from 0 to 1.

        Raises:
            InputError: the task has no classes, or not this one.
        """
        import numpy as np
        from scipy.stats import rankdata

        outputs, labels = rows.get("outputs"), rows.get("labels")
        if outputs is None or labels is None or (outputs.shape[1] == 1 and labels.ndim == 1):
            raise InputError(f"metric 'roc-auc': the task has no classes; its table has {', '.join(rows)}")
        if self.of >= outputs.shape[1]:
            raise InputError(f"metric 'roc-auc': expected of to be from 0 to {outputs.shape[1] - 1}, got {self.of}")
        positive = labels[:, self.of] > 0 if labels.ndim > 1 else labels == self.of
        others = np.delete(outputs, self.of, axis=1)
        scores = outputs[:, self.of] - (0 if labels.ndim > 1 else np.logaddexp.reduce(others, axis=1))
        count = int(positive.sum())
        if count in {0, len(positive)}:
            return 0.5
        ranks = float(rankdata(scores)[positive].sum())
        return (ranks - count * (count + 1) / 2) / (count * (len(positive) - count))


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the metric ``roc-auc``."""
    yield RocAuc
