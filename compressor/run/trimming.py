"""What a trimmed vocabulary makes of a session: smaller tables, the new tokenizer, rows read anew; all of it proved.

From then on everything in the run is in the new ids: the model, the rows, and the teacher too, whose table has the same
rows of the dense model's. A row that is cut into the same tokens as before means the same to it as before. The dense
model itself, its tokenizer and its rows stay in ``session.untrimmed``, for its files and for verification.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.model import embeddings, max_positions
from compressor.model.batches import collate
from compressor.model.companions import copy_tokenizer
from compressor.model.files import write_text
from compressor.model.outputs import at_real_tokens, raw_output
from compressor.plugin.trimmed import Trimmed
from compressor.run.data import Calibration, parts, rows_digest, same_parts
from compressor.run.load import calibration_of, draw_calibration, load_rows, load_tokenizer
from compressor.run.session import Session

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TOKENIZER, DENSE_TOKENIZER, TRIMMED = "tokenizer", "dense-tokenizer", "trimmed.json"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Read:
    """What a session has of texts, made with one tokenizer.

    Attributes:
        teacher: the dense model with the rows of this tokenizer's tokens only.
        tokenizer: the new one.
        tokenizer_files: directory of its files.
        calibration: rows; the same parts of the same examples of the train split.
        validation: the same.
        train_rows: the same.
        train_digest: of them.
        kept_tokens: ids of its tokens in the source's vocabulary.
    """

    teacher: nn.Module
    tokenizer: PreTrainedTokenizerBase
    tokenizer_files: Path
    calibration: Calibration
    validation: Rows
    train_rows: Rows
    train_digest: str
    kept_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Trimming:
    """What a step that trims makes of a session.

    Attributes:
        model: with smaller tables.
        read: what the session has of texts from then on.
        figures: plain data for the report.
    """

    model: nn.Module
    read: Read
    figures: dict[str, Any]


def trim(session: Session, trimmed: Trimmed, model: nn.Module, stage: Path) -> Trimming:
    """Trim a model and leave in the stage's directory what a resumed run needs; the session stays as it is.

    Args:
        session: before the trimming.
        trimmed: what stays.
        model: what the step's masks left of the session's.
        stage: directory of the step.

    Raises:
        CompressorError: tokens, tokenizer and model do not fit, or an output changed that must not.
    """
    smaller = embeddings.trimmed(model, trimmed.tokens, trimmed.positions)
    keep_trimmed(session, trimmed, stage)
    read = read_anew(session, trimmed, stage)
    return Trimming(smaller, read, figures(session, read, trimmed, (model, smaller)))


def keep_trimmed(session: Session, trimmed: Trimmed, stage: Path) -> None:
    """Write what a resumed run and the finished directory need: the new tokenizer, and before the first one the old."""
    write_text(stage / TRIMMED, json.dumps({"tokens": trimmed.tokens, "positions": trimmed.positions}))
    (stage / TOKENIZER).mkdir(parents=True, exist_ok=True)
    for name, text in trimmed.files.items():
        if Path(name).name != name:
            raise CompressorError(f"tokenizer file '{name}': expected a plain file name")
        write_text(stage / TOKENIZER / name, text)
    if session.untrimmed is None:
        copy_tokenizer(session.tokenizer_files, stage / DENSE_TOKENIZER)


def kept_trimmed(stage: Path) -> Trimmed | None:
    """Return what ``keep_trimmed`` wrote; None where the step trimmed nothing."""
    if not (stage / TRIMMED).is_file():
        return None
    plain = json.loads((stage / TRIMMED).read_text(encoding="utf-8"))
    files = {path.name: path.read_text(encoding="utf-8") for path in (stage / TOKENIZER).iterdir()}
    return Trimmed(tuple(plain["tokens"]), files, plain["positions"])


def read_anew(session: Session, trimmed: Trimmed, stage: Path) -> Read:
    """Load the tokenizer of a stage, and everything that the session reads with it.

    Raises:
        CompressorError: the tokenizer is not one of these tokens.
    """
    longest = max_positions(session.model) if trimmed.positions is None else trimmed.positions
    tokenizer = load_tokenizer(stage / TOKENIZER, longest=longest)
    _check_tokens(session.tokenizer, tokenizer, trimmed.tokens)
    config: Any = session.teacher.config
    train = load_rows(session.task, "train", tokenizer, label2id=config.label2id)
    rows = cast("Rows", train)
    validation = (
        load_rows(session.task, "validation", tokenizer, label2id=config.label2id).to_list()
        if session.validation
        else []
    )
    return Read(
        teacher=embeddings.trimmed(session.teacher, trimmed.tokens).requires_grad_(False),
        tokenizer=tokenizer,
        tokenizer_files=stage / TOKENIZER,
        calibration=_same_calibration(session, train, tokenizer),
        validation=validation,
        train_rows=rows if len(session.train_rows) else (),
        train_digest=rows_digest(rows) if session.train_digest else "",
        kept_tokens=tuple(session.kept_tokens[one] for one in trimmed.tokens)
        if session.kept_tokens
        else trimmed.tokens,
    )


def _same_calibration(session: Session, train: Dataset, tokenizer: PreTrainedTokenizerBase) -> Calibration:
    """Return the session's calibration rows as the new tokenizer cuts them; other ones where nothing says which they are."""
    drawn = session.calibration
    before = parts(cast("Dataset", session.train_rows)) if len(session.train_rows) else []
    numbers = same_parts(before, parts(train), drawn.numbers) if before else []
    if not numbers:
        return draw_calibration(train, session.plan.calibration, tokenizer, seed=session.seed)
    return calibration_of(train, numbers, drawn.batch_size, tokenizer)


def _check_tokens(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, tokens: Sequence[int]) -> None:
    expected = old.convert_ids_to_tokens(list(tokens))
    found = new.convert_ids_to_tokens(list(range(len(new))))
    if expected != found:
        place = next((n for n, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), len(found))
        known = [*found[place : place + 1], "nothing"][0]
        raise CompressorError(
            f"the new tokenizer has {len(found)} tokens, {len(expected)} stay; id {place} is {known!r}",
            hint="transformers does not read these tokenizer files as they were written; this tokenizer cannot be trimmed",
        )


def figures(session: Session, read: Read, trimmed: Trimmed, models: tuple[nn.Module, nn.Module]) -> dict[str, Any]:
    """Return what the report says of the vocabulary, having proved that nothing else changed.

    Args:
        session: before the trimming.
        read: what it will read.
        trimmed: what stays.
        models: before and after.

    Raises:
        CompressorError: a row that is made of kept tokens does not give the same output.
    """
    before: Any = (session.untrimmed or session).teacher
    after: Any = models[1]
    pairs = {"calibration": (session.calibration.rows, read.calibration.rows)}
    if len(session.train_rows):
        pairs["train"] = (session.train_rows, read.train_rows)
    if session.validation:
        pairs["validation"] = (session.validation, read.validation)
    return {
        "tokens": {"dense": before.config.vocab_size, "compressed": after.config.vocab_size},
        "positions": {"dense": max_positions(before), "compressed": max_positions(after)},
        "coverage": {split: _coverage(old, new, trimmed.tokens) for split, (old, new) in pairs.items()},
        "unknown": {
            split: {"before": _unknown(old, session.tokenizer), "after": _unknown(new, read.tokenizer)}
            for split, (old, new) in pairs.items()
        },
        "proof": _proof(session, read, trimmed, models),
    }


def _ids(rows: Rows, tokens: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
    for row in rows:
        yield tuple(row["input_ids"] if tokens is None else (tokens[one] for one in row["input_ids"]))


def _coverage(old: Rows, new: Rows, tokens: Sequence[int]) -> float:
    """Return the fraction of rows that are cut into the same tokens as before."""
    same = Counter(_ids(old)) & Counter(_ids(new, tokens))
    return sum(same.values()) / len(old)


def _unknown(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the fraction of tokens that are unknown."""
    ids = [one for row in _ids(rows) for one in row]
    return ids.count(cast("int", tokenizer.unk_token_id)) / max(1, len(ids))


@torch.no_grad()
def _proof(session: Session, read: Read, trimmed: Trimmed, models: tuple[nn.Module, nn.Module]) -> dict[str, float]:
    """Prove on one batch of calibration rows of kept tokens, short and long ones, that both models give exactly the same."""
    ids = {old: new for new, old in enumerate(trimmed.tokens)}
    longest = trimmed.positions or max_positions(session.model)
    rows = [row for row in session.calibration.rows if len(row["input_ids"]) <= longest]
    kept = [row for row in rows if ids.keys() >= set(row["input_ids"])]
    chosen = kept[:: max(1, -(-len(kept) // session.calibration.batch_size))]
    if not chosen:
        return {"rows": 0}
    renumbered = [{**row, "input_ids": [ids[one] for one in row["input_ids"]]} for row in chosen]
    batches = [collate(chosen, session.tokenizer), collate(renumbered, read.tokenizer)]
    expected, found = (
        raw_output(model, {name: tensor.to(session.device) for name, tensor in batch.items()})
        for model, batch in zip(models, batches, strict=True)
    )
    mask = batches[0]["attention_mask"].bool().to(session.device)
    difference = float(at_real_tokens(expected - found, mask).abs().max())
    if difference:
        raise CompressorError(
            f"trimming changed the output of rows made of kept tokens by {difference:.2e}; expected none",
            hint="this is a bug of the method or of the model's tables; the run stops before export",
        )
    return {"rows": len(chosen), "max_abs_diff": difference}
