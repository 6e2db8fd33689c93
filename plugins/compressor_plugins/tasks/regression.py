"""A score for every text, on the user's own rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import Split
from compressor_plugins.tasks._own_texts import OwnTexts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component
    from compressor_plugins.tasks._classes import Classes


class Regression(OwnTexts):
    """Texts or pairs of texts with one number each, from csv, tsv, json, jsonl or parquet files or a data set.

    The checkpoint has one output, on the scale of the labels. Metrics: ``spearman``, which gates compare, ``pearson``, and
    ``negative_mse``, the mean squared error times -1.
    """

    name: ClassVar[str] = "regression"

    label: str = Field(default="label", description="Column of the number.")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Rank correlation, which gates compare, linear correlation, and the squared error."""
        return ("spearman", "pearson", "negative_mse")

    @property
    def num_labels(self) -> int:
        """One output."""
        return 1

    def load(
        self,
        split: Split,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label2id: Mapping[str, int] | None = None,  # noqa: ARG002 - the contract's; there are no classes
    ) -> Dataset:
        """Return the split's tokenised rows.

        Raises:
            InputError: the rows cannot be read, a column is absent, or a label is no number.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _files, _labels

        rows, source = self.read(split)
        texts = self.texts(rows, source)
        values = _files.column(rows, self.label, source=source, option="label")
        labels = _labels.scores(values, low=-math.inf, high=math.inf, source=source)
        return _files.tokenise(*texts, labels=labels, tokenizer=tokenizer, max_length=self.max_length)

    def judge(self, values: Sequence[Any], classes: Classes) -> None:
        """Check numbers."""
        from compressor_plugins.tasks import _labels

        _labels.scores(values, low=-math.inf, high=math.inf, source=classes.source)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``regression``."""
    yield Regression
