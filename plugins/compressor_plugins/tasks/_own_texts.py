"""What tasks on labelled texts of the user's own share. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin.components import Split
from compressor_plugins.tasks._classification import ClassificationTask
from compressor_plugins.tasks._own_rows import OwnRows

if TYPE_CHECKING:
    from datasets import Dataset


SECOND = ("text_pair", "text2", "text_b", "sentence2", "question2", "hypothesis", "passage")
"""What columns of second texts are often called."""


class OwnTexts(ClassificationTask, OwnRows):
    """Texts or pairs of texts, from files or a data set."""

    label_option: ClassVar[str] = "label"
    counted: ClassVar[bool] = True

    text: str = Field(default="text", description="Column of the text.")
    text_pair: str | None = Field(default=None, description="Column of the second text of a pair.")

    @property
    def pairs(self) -> bool:
        """Whether a second column of texts is named."""
        return self.text_pair is not None

    def columns(self, split: Split) -> Mapping[str, str]:
        """Return the columns of texts, and of labels."""
        del split
        second = {"text_pair": self.text_pair} if self.text_pair else {}
        return {"text": self.text, **second, self.label_option: getattr(self, self.label_option)}

    def texts(self, rows: Dataset, source: str) -> list[list[str]]:
        """Return the texts, and the second ones of pairs.

        Raises:
            InputError: a column is absent, or has values that are no text.
        """
        from compressor.progress import announced
        from compressor_plugins.tasks import _files

        second = next((name for name in SECOND if name in rows.column_names), None)
        if second and not self.pairs:
            announced.warning(
                "%s has a column '%s', which is not read; for pairs give text_pair: %s", source, second, second
            )
        names = {"text": self.text} | ({"text_pair": self.text_pair} if self.text_pair else {})
        return [_files.texts(rows, name, source=source, option=option) for option, name in names.items()]
