"""Fidelity to the dense embeddings, and where the texts come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from compressor.errors import InputError
from compressor_plugins.tables import read_rows
from compressor_plugins.tasks import _files

CHUNK = 1024
"""Rows of the similarity matrix that are held at a time."""


def read_texts(path: Path, column: str) -> list[str]:
    """Return the texts of a file: the lines of a ``.txt``, or a column of a table; empty ones are left out.

    Raises:
        InputError: the file cannot be read, or has no texts.
    """
    if path.suffix == ".txt":
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected UTF-8 text, one text per line: {error}") from error
    else:
        texts = _files.texts(read_rows(path), column, source=str(path), option="text")
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{path}: the file has no text")
    return texts


def hold_out(texts: list[str], *, held: bool) -> list[str]:
    """Return a fifth of the distinct texts (``held``) or the rest; which ones depends on nothing but the texts."""
    distinct = list(dict.fromkeys(texts))
    by_hash = sorted(distinct, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = set(by_hash[: len(distinct) // 5])
    return [text for text in distinct if (text in chosen) == held]


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of every row of (n, D) with the same row of (n, D), shape (n,)."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("nd,nd->n", left, right)
    cosines: np.ndarray = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosines


def neighbors(embeddings: np.ndarray, k: int) -> np.ndarray:
    """Return the ids (n, k) of the k rows with the largest inner product with each row, itself left out."""
    vectors = torch.from_numpy(np.ascontiguousarray(embeddings))
    found = []
    for start in range(0, len(vectors), CHUNK):
        similarity = vectors[start : start + CHUNK] @ vectors.T
        own = torch.arange(len(similarity))
        similarity[own, own + start] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found).numpy()


def neighbor_agreement(left: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Return the fraction of each row's k nearest neighbours that both embeddings (n, D) share, shape (n,)."""
    pairs = zip(neighbors(left, k), neighbors(right, k), strict=True)
    return np.array([len(np.intersect1d(one, other)) / k for one, other in pairs])
