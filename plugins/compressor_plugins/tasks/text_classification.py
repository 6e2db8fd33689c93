"""Text classification on the user's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import Split
from compressor_plugins.tasks._classification import ClassificationTask
from compressor_plugins.tasks._options import TableFile

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component


class TextClassification(ClassificationTask):
    """Texts or pairs of texts with one class each, from csv, tsv, json, jsonl or parquet files.

    Labels are the checkpoint's class ids, or its class names (``label2id`` in its config). Where the checkpoint calls
    its classes ``LABEL_0``, ``LABEL_1``, ..., the option ``labels`` names them in that order.
    """

    name: ClassVar[str] = "text-classification"

    train: TableFile = Field(description="File with calibration rows (csv, tsv, json, jsonl or parquet).")
    validation: TableFile = Field(description="File with the rows the metric is computed on.")
    text: str = Field(default="text", description="Column of the text.")
    text_pair: str | None = Field(default=None, description="Column of the second text of a pair.")
    label: str = Field(default="label", description="Column of the class id or class name.")
    labels: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="Class names, in the order of the checkpoint's ids."
    )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Accuracy, which gates compare, and the mean F1 of the classes."""
        return ("accuracy", "macro_f1")

    @property
    def num_labels(self) -> int | None:
        """Number of classes, when ``labels`` names them."""
        return len(self.labels) if self.labels else None

    @property
    def pairs(self) -> bool:
        """Whether a second column of texts is named."""
        return self.text_pair is not None

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return the file's tokenised rows.

        Raises:
            InputError: the file cannot be read, a column is absent, or a label is unknown; says what was found.
        """
        from compressor_plugins.tasks import _files, _labels

        path = self.train if split == "train" else self.validation
        rows, source = _files.read_rows(path), str(path)
        names = [self.text] if self.text_pair is None else [self.text, self.text_pair]
        texts = [
            _files.texts(rows, name, source=source, option=option)
            for name, option in zip(names, ("text", "text_pair"), strict=False)
        ]
        labels = _labels.class_ids(
            _files.column(rows, self.label, source=source, option="label"),
            names=self.labels,
            label2id=None if self.labels else label2id,  # what the user says of the checkpoint wins
            source=source,
        )
        return _files.tokenise(*texts, labels=labels, tokenizer=tokenizer, max_length=self.max_length)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``text-classification``."""
    yield TextClassification
