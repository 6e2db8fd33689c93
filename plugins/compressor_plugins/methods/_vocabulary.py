"""Which tokens stay: those that texts have, and those that the tokenizer or the model cannot do without."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.model import Masks, embeddings
from compressor.plugin import Pruned, Trimmed
from compressor.progress import track
from compressor_plugins.methods._tokenizer_files import rewritten_files, tokenizer_data
from compressor_plugins.methods._tokenizer_kinds import model_of
from compressor_plugins.methods._tokenizer_models import TokenizerModel
from compressor_plugins.tables import read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from compressor.run.session import Session
    from compressor_plugins.methods.vocabulary import Vocabulary

CHUNK = 1024
"""Texts that are cut at once."""


def prune(method: Vocabulary, session: Session) -> Pruned:
    """Return what stays.

    Raises:
        InputError: the tokenizer or the model cannot be trimmed, the corpus has no text, or the target is too low.
    """
    embeddings.check(session.model, method.positions)
    data, pieces = _read_tokenizer(method, session)
    counts = token_counts(method, session)
    if method.tokens:
        tokens = chosen(method, pieces, counts, required(method, session, pieces))
    else:
        tokens = sorted(pieces.names)
    files = rewritten_files(data, pieces, session.tokenizer_files, tokens, method.positions)
    seen = [token for token, count in counts.items() if count >= method.min_count]
    metrics = {
        "tokens_seen": len(seen),
        "tokens_counted": sum(counts.values()),
        "tokens_left_out": sum(counts[token] for token in counts.keys() - set(tokens)),
    }
    return Pruned(Masks({}), metrics=metrics, trimmed=Trimmed(tuple(tokens), files, method.positions))


def check(method: Vocabulary, session: Session, *, first: bool) -> None:
    """Check what can be known before anything runs, as ``PruningMethod.check_texts`` says.

    Raises:
        InputError: the tokenizer or the model cannot be trimmed, or the target is too low whatever the texts have.
    """
    embeddings.check(session.model, method.positions)
    _, pieces = _read_tokenizer(method, session)
    named = embeddings.named_tokens(session.model)
    unknown = next((token for token in named if token not in pieces.names), None)
    if unknown is not None:
        message = f"token {unknown}, which config.json names as {named[unknown]}, is none of the tokenizer"
        raise InputError(message, hint="correct config.json: a token that it names must stay")
    if method.tokens and first:
        chosen(method, pieces, Counter(), required(method, session, pieces))


def _read_tokenizer(method: Vocabulary, session: Session) -> tuple[dict[str, Any], TokenizerModel]:
    data = tokenizer_data(session.tokenizer, session.tokenizer_files)
    return data, model_of(data, keep_alphabet=method.keep_alphabet)


def token_counts(method: Vocabulary, session: Session) -> Counter[int]:
    """Return how often train rows and corpus have each token.

    Raises:
        InputError: a file has no text.
    """
    counts: Counter[int] = Counter()
    for row in session.train_rows:
        counts.update(row["input_ids"])
    for path in method.corpus:
        texts = list(corpus_texts(path))
        if not texts:
            raise InputError(f"{path}: the file has no text")
        for start in track(range(0, len(texts), CHUNK), "Tokens"):
            counts.update(_cut(session.tokenizer, texts[start : start + CHUNK]))
    return counts


def corpus_texts(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, or the texts of every column of a table that has text.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix == ".txt":
        yield from _lines(path)
        return
    table = read_rows(path)
    for name in table.column_names:
        yield from (value for value in table[name][:] if isinstance(value, str) and value.strip())


def _lines(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected UTF-8 text, one text per line: {error}") from error
    yield from (line.strip() for line in lines if line.strip())


def _cut(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterator[int]:
    encoded: Any = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)
    for ids in encoded["input_ids"]:
        yield from ids


def required(method: Vocabulary, session: Session, pieces: TokenizerModel) -> set[int]:
    """Return what stays however rare: special and added tokens, the alphabet, what the model and user name."""
    kept = {*pieces.required, *session.tokenizer.all_special_ids, *embeddings.named_tokens(session.model)}
    first = embeddings.first_position(session.model)
    kept |= set(range(first))  # positions are counted from the id of the padding, which must not change
    words = tuple(_lines(method.keep)) if isinstance(method.keep, Path) else method.keep
    ids = {name: token for token, name in pieces.names.items()}
    kept |= {ids[word] for word in words if word in ids}
    kept |= set(_cut(session.tokenizer, list(words))) if words else set()
    return kept & pieces.names.keys()


def chosen(method: Vocabulary, pieces: TokenizerModel, counts: Counter[int], kept: set[int]) -> list[int]:
    """Return the ids that stay, ascending: the required ones, then the most frequent with all that they are made of.

    Raises:
        InputError: the required ones alone are more than the target allows.
    """
    stay = pieces.closed(kept)
    whole = len(pieces.names)
    share = None if method.target is None else method.target.vocabulary
    limit = whole if share is None else math.floor(share * whole + 1e-9)
    if len(stay) > limit:
        raise InputError(
            f"target.vocabulary {share:g} allows {limit} of {whole} tokens; special tokens, bytes, the alphabet and "
            f"what is named alone are {len(stay)}",
            hint=f"ask for {math.ceil(1000 * len(stay) / whole) / 1000} or more"
            + (", or set keep_alphabet: false" if method.keep_alphabet else ""),
        )
    for token in frequent(counts, method.min_count):
        new = pieces.closed({token} & pieces.names.keys()) - stay
        if len(stay) + len(new) > limit:
            break
        stay |= new
    return sorted(stay)


def frequent(counts: Counter[int], least: int) -> Iterable[int]:
    """Return tokens that were seen so often, the most frequent first, of equals the one with the smaller id."""
    return sorted((token for token, count in counts.items() if count >= least), key=lambda one: (-counts[one], one))
