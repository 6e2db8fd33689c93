"""The texts that a scorer is trained on, of one task or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import InputError
from compressor_plugins.methods._sentences import cut

if TYPE_CHECKING:
    from compressor.plugin import Task
    from compressor.run.session import Session
    from compressor_plugins.methods._smp_options import ScorerTraining


@dataclass(frozen=True)
class Texts:
    """One task's train rows, and whether they are pairs."""

    task: Task
    rows: Any

    @property
    def weight(self) -> int:
        """How often the task is drawn, relative to others: the published ``int(size^0.2)``."""
        return int(len(self.rows) ** 0.2)

    def drawn(self, count: int, draw: np.random.Generator) -> list[Mapping[str, Any]]:
        """Return so many rows, as the encoder reads them."""
        chosen = self.rows.select(draw.permutation(len(self.rows))[:count])
        return [cut(row) for row in chosen.to_list()]


def texts_of(options: ScorerTraining, session: Session) -> list[Texts]:
    """Read the train texts of all tasks.

    Raises:
        InputError: a task has not enough rows for a batch.
    """
    found = []
    for task in options.tasks or (session.task,):
        labels = session.label2id if task == session.task else None
        texts = Texts(task, task.load("train", session.tokenizer, label2id=labels))
        if len(texts.rows) < options.batch_size:
            raise InputError(
                f"scorer.train: task '{task.name}' has {len(texts.rows)} train rows; a batch needs {options.batch_size}"
            )
        found.append(texts)
    return found
