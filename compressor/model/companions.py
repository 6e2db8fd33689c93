"""Files that stand beside a model's weights and are copied as they are. Importing this module does not import torch.

A tokenizer that transformers 5 saves again may name a class that 4.57 refuses, so its files are copied, and that one
name is replaced. A sentence encoder's directory says which pooling belongs to it, in ``modules.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from compressor.errors import InputError

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
"""Files of which every tokenizer has one."""
TOKENIZER_FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
NEWER_CLASS, ANY_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
"""What transformers 5 calls a tokenizer that is its ``tokenizer.json`` alone, and what every version calls it."""
MODULES = "modules.json"
SENTENCE_FILES = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json")
COPIED = (".json", ".safetensors")
"""What is copied of the directories that ``modules.json`` names: no pickles."""


def copy_companions(source: Path, directory: Path, tokenizer: Path | None = None) -> None:
    """Copy the tokenizer's files, and those of a sentence encoder, where the source has them.

    Args:
        source: a checkpoint directory.
        directory: that the model was saved to.
        tokenizer: directory of a tokenizer that takes the place of the source's; a sentence encoder's files may be there too.

    Raises:
        InputError: ``modules.json`` is damaged, or names a place outside the checkpoint.
    """
    copy_tokenizer(tokenizer or source, directory)
    for name in SENTENCE_FILES:
        found = [place / name for place in (tokenizer, source) if place is not None and (place / name).is_file()]
        if found:
            shutil.copyfile(found[0], directory / name)
    config = directory / "tokenizer_config.json"
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f'"{NEWER_CLASS}"', f'"{ANY_CLASS}"'), encoding="utf-8")
    for module in _modules(source):
        for path in sorted((source / module).glob("*")):
            if path.suffix in COPIED:
                (directory / module).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, directory / module / path.name)


def tokenizer_paths(directory: Path) -> list[Path]:
    """Return the tokenizer's files that a directory has."""
    return [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Copy the tokenizer's files, and leave no file of another one beside them.

    Args:
        source: a directory that has them.
        directory: that is made where it is not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
        else:
            (directory / name).unlink(missing_ok=True)


def _modules(source: Path) -> Iterator[str]:
    """Yield the directories of a sentence encoder's modules; the model's own, the checkpoint itself, is not among them."""
    path = source / MODULES
    if not path.is_file():
        return
    try:
        places = [str(module["path"]) for module in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: expected a list of modules, each with a path: {error!r}") from error
    for place in places:
        if not (source / place).resolve().is_relative_to(source.resolve()):
            raise InputError(f"{path}: the module path '{place}' leads out of the checkpoint")
        if (source / place).resolve() != source.resolve():
            yield place
