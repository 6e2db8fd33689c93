"""A vocabulary of whole words or WordPieces in a ``tokenizer.json``, as data, and the same one with fewer tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class TokenizerModel:
    """A vocabulary of whole words or WordPieces, and what the others have in common.

    Attributes:
        data: the whole ``tokenizer.json``.
        keep_alphabet: whether single characters stay.
    """

    data: Mapping[str, Any]
    keep_alphabet: bool = True

    @property
    def model(self) -> Mapping[str, Any]:
        """The part that cuts words."""
        found: Mapping[str, Any] = self.data["model"]
        return found

    @cached_property
    def own(self) -> dict[int, str]:
        """The model's own tokens by id."""
        return {token: name for name, token in self.model["vocab"].items()}

    @cached_property
    def names(self) -> dict[int, str]:
        """All tokens by id, added ones too."""
        return self.own | {added["id"]: added["content"] for added in self.data.get("added_tokens") or ()}

    @cached_property
    def required(self) -> set[int]:
        """Tokens that stay: added ones, the unknown token, bytes, and the alphabet if that is wanted."""
        found = {added["id"] for added in self.data.get("added_tokens") or ()}
        unknown = self.model.get("unk_token")
        return found | {
            token
            for token, name in self.own.items()
            if name == unknown or BYTE.fullmatch(name) or self.in_alphabet(name)
        }

    def in_alphabet(self, name: str) -> bool:
        """Tell whether a token must stay as part of the alphabet."""
        return self.keep_alphabet and len(self.bare(name)) == 1

    def bare(self, name: str) -> str:
        """Return a token without the marks of its place in a word."""
        affixes = (self.model.get("continuing_subword_prefix"), self.model.get("end_of_word_suffix"))
        prefix, suffix = (one or "" for one in affixes)
        return name.removeprefix(prefix).removesuffix(suffix) if name not in affixes else name

    def closed(self, tokens: Iterable[int]) -> set[int]:
        """Return tokens with all that must be there for them to come about."""
        return set(tokens)

    def with_only(self, ids: Mapping[int, int]) -> dict[str, Any]:
        """Return the model with some of its tokens, under new ids."""
        left = sorted((token for token in self.own if token in ids), key=ids.__getitem__)
        return {**self.model, "vocab": {self.own[token]: ids[token] for token in left}}
