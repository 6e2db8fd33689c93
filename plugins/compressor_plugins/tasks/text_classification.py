"""Text classification on the user's own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import hookimpl
from compressor.plugin.components import Split
from compressor_plugins.tasks._named_classes import NamedClasses
from compressor_plugins.tasks._own_texts import OwnTexts

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from compressor.plugin import Component


class TextClassification(NamedClasses, OwnTexts):
    """Texts or pairs of texts with one class each, from csv, tsv, json, jsonl or parquet files or a data set.

    Labels are the checkpoint's class ids, or its class names (``label2id`` in its config). Where the checkpoint calls
    its classes ``LABEL_0``, ``LABEL_1``, ..., the option ``labels`` names them in that order.
    """

    name: ClassVar[str] = "text-classification"

    label: str = Field(default="label", description="Column of the class id or class name.")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Accuracy, which gates compare, and the mean F1 of the classes."""
        return ("accuracy", "macro_f1")

    def load(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, *, label2id: Mapping[str, int] | None = None
    ) -> Dataset:
        """Return the split's tokenised rows.

        Raises:
            InputError: the rows cannot be read, a column is absent, or a label is unknown; says what was found.
            SetupError: the hub cannot be reached and has not been read before.
        """
        from compressor_plugins.tasks import _files

        rows, source = self.read(split)
        texts = self.texts(rows, source)
        values = _files.column(rows, self.label, source=source, option="label")
        classes = self.classes(rows, self.label, label2id=label2id, source=source)
        return _files.tokenise(*texts, labels=classes.ids(values), tokenizer=tokenizer, max_length=self.max_length)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the task ``text-classification``."""
    yield TextClassification
