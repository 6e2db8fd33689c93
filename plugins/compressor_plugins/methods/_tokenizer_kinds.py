"""The model of a ``tokenizer.json``, as data: what its tokens are made of, and the same model with fewer of them.

Text whose tokens all stay is cut as before:

* WordPiece takes the longest piece that fits, from the left: the longest of all is the longest of those that stay.
* BPE merges by rank. All merges that give a token that stays, stay, and so do the tokens that they join; of the merges
  of a text that is made of such tokens the first one is the first one still.
* Unigram takes the path with the best score. It stays, with its score, and others only go. What an unknown character
  costs depends on the lowest score, so one token with that score stays too, and with a token its characters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compressor.errors import InputError
from compressor_plugins.methods._tokenizer_models import TokenizerModel


@dataclass(frozen=True)
class Bpe(TokenizerModel):
    """Merges by rank."""

    @cached_property
    def byte_level(self) -> bool:
        """Whether the alphabet are bytes."""
        return "ByteLevel" in str(self.data.get("pre_tokenizer"))

    def in_alphabet(self, name: str) -> bool:
        """Tell whether a token must stay as part of the alphabet: bytes always do."""
        return (self.keep_alphabet or self.byte_level) and len(self.bare(name)) == 1

    @cached_property
    def merges(self) -> list[tuple[str, str, str]]:
        """Left part, right part and result of every merge, in their order."""
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in self.model["merges"])
        prefix = self.model.get("continuing_subword_prefix") or ""
        return [(left, right, left + right.removeprefix(prefix)) for left, right in pairs]

    @cached_property
    def parts(self) -> dict[int, set[int]]:
        """What a token is merged from, by any merge."""
        ids = {name: token for token, name in self.own.items()}
        found: dict[int, set[int]] = {}
        for left, right, whole in self.merges:
            found.setdefault(ids[whole], set()).update((ids[left], ids[right]))
        return found

    def closed(self, tokens: Iterable[int]) -> set[int]:
        """Return tokens with all that they are merged from."""
        return _reached(set(tokens), self.parts)

    def with_only(self, ids: Mapping[int, int]) -> dict[str, Any]:
        """Return the model with some of its tokens and the merges that give them."""
        smaller = super().with_only(ids)
        pairs = zip(self.model["merges"], self.merges, strict=True)
        return {**smaller, "merges": [merge for merge, (_, _, whole) in pairs if whole in smaller["vocab"]]}


@dataclass(frozen=True)
class Unigram(TokenizerModel):
    """The path with the best score."""

    @cached_property
    def own(self) -> dict[int, str]:
        """The model's own tokens by id."""
        return dict(enumerate(name for name, _ in self.model["vocab"]))

    @cached_property
    def required(self) -> set[int]:
        """Beside the others, a token with the lowest score."""
        scores = [score for _, score in self.model["vocab"]]
        unknown = {self.model["unk_id"]} - {None}
        return super().required | unknown | {min(range(len(scores)), key=scores.__getitem__)}

    @cached_property
    def parts(self) -> dict[int, set[int]]:
        """The characters of a token, as far as they are tokens."""
        ids = {name: token for token, name in self.own.items()}
        return {token: {ids[one] for one in name if one in ids} for token, name in self.own.items()}

    def closed(self, tokens: Iterable[int]) -> set[int]:
        """Return tokens with their characters."""
        return _reached(set(tokens), self.parts)

    def with_only(self, ids: Mapping[int, int]) -> dict[str, Any]:
        """Return the model with some of its tokens."""
        vocab = self.model["vocab"]
        left = sorted((token for token in self.own if token in ids), key=ids.__getitem__)
        unknown = self.model["unk_id"]
        if [ids[token] for token in left] != list(range(len(left))):
            raise InputError("the tokenizer has added tokens before the model's own: it cannot be trimmed")
        return {
            **self.model,
            "vocab": [vocab[token] for token in left],
            "unk_id": None if unknown is None else ids[unknown],
        }


def _reached(found: set[int], parts: Mapping[int, Collection[int]]) -> set[int]:
    waiting = list(found)
    while waiting:
        new = set(parts.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


KINDS: Mapping[str, type[TokenizerModel]] = {
    "WordPiece": TokenizerModel,
    "WordLevel": TokenizerModel,
    "BPE": Bpe,
    "Unigram": Unigram,
}


def model_of(data: Mapping[str, Any], *, keep_alphabet: bool) -> TokenizerModel:
    """Return the model of a ``tokenizer.json``.

    Raises:
        InputError: it is of an unknown kind.
    """
    kind = data["model"].get("type") or ("BPE" if "merges" in data["model"] else "WordPiece")
    if kind not in KINDS:
        raise InputError(f"the tokenizer's model is {kind}; expected {', '.join(KINDS)}")
    return KINDS[kind](data, keep_alphabet=keep_alphabet)
