"""What a task sees of its rows at a glance. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Glance:
    """What can be told of a split without a tokenizer and without torch.

    Attributes:
        problems: that ``load`` would end with, each with the option of the task that it is about.
        samples: that the split has; None where that is not known.
    """

    problems: tuple[tuple[str, str], ...] = ()
    samples: int | None = None
