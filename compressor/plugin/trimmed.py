"""What a method leaves of a vocabulary. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Trimmed:
    """Tokens and positions that stay, with the tokenizer that gives these tokens and no others.

    Attributes:
        tokens: ids in the vocabulary as it is now, in the order of their new ids.
        files: every file of the new tokenizer that stands beside a model, by name: its text. ``sentence_bert_config.json``
            may be among them.
        positions: tokens of the longest sequence; None leaves positions as they are.
    """

    tokens: tuple[int, ...]
    files: Mapping[str, str]
    positions: int | None = None

    @classmethod
    def read(cls, plain: Mapping[str, Any] | None) -> Self | None:
        """Return what ``dataclasses.asdict`` made plain, or JSON of it."""
        return None if plain is None else cls(tuple(plain["tokens"]), dict(plain["files"]), plain["positions"])
