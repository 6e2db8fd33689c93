"""What tasks on labelled texts of the user's own share. Importing this module does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from compressor_plugins.tasks._classification import ClassificationTask
from compressor_plugins.tasks._dataset import OwnRows

if TYPE_CHECKING:
    from datasets import Dataset


SECOND = ("text_pair", "text2", "text_b", "sentence2", "question2", "hypothesis", "passage")
"""What columns of second texts are often called."""


class OwnTexts(ClassificationTask, OwnRows):
    """Texts or pairs of texts, from files or a data set."""

    text: str = Field(default="text", description="Column of the text.")
    text_pair: str | None = Field(default=None, description="Column of the second text of a pair.")

    @property
    def pairs(self) -> bool:
        """Whether a second column of texts is named."""
        return self.text_pair is not None

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
