"""Banks of sentence vectors: one file a model, float16, memory-mapped, named by all that its content depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model import accepted_inputs, collate, fingerprint
from compressor.progress import track
from compressor.prune import Share
from compressor.train import CHECKPOINTS, NumberedRows, Processes
from compressor_plugins.losses._contrast import sentence_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compressor.run.session import Session

CHUNK, BATCH = 2048, 64
"""Rows that are sorted by length together, and that are encoded at once."""


@dataclass(frozen=True)
class Bank:
    """Unit vectors of the rows in training, by one model.

    Attributes:
        digest: names the file: sha256 of the model's encoder, the rows and the kind of vector.
        vectors: shape (n, D), float16, memory-mapped.
    """

    digest: str
    vectors: NDArray[np.float16]

    def at(self, places: NDArray[np.int64]) -> Tensor:
        """Return the vectors of rows by their places, shape (m, D), float32, on the CPU."""
        return torch.from_numpy(self.vectors[places]).float()


@dataclass(frozen=True)
class Encoding:
    """How the rows of a training become vectors, and where these rest.

    Attributes:
        session: whose tokenizer pads, and whose stage directory holds the files.
        rows: of the training, n of them; a vector's place is its row's.
        vector: which vector of a sentence.
    """

    session: Session
    rows: NumberedRows
    vector: Literal["cls", "mean"]

    @property
    def directory(self) -> Path:
        """Return where the files rest: with the checkpoints, so that a killed run finds them again."""
        return self.session.stage / CHECKPOINTS / "banks"

    def path(self, digest: str) -> Path:
        """Return the file of a bank."""
        return self.directory / f"{digest}.npy"

    def bank(self, model: nn.Module, whose: str) -> Bank:
        """Return the bank of a model, which is made now unless its file is there.

        Of several processes the first one makes it.

        Args:
            model: in eval mode, with or without a head.
            whose: it is, for the bar and for errors.

        Raises:
            InputError: the model has no vectors of this kind.
        """
        whole: Any = model
        encoder = whole.base_model
        digest = self._digest(encoder)
        if Processes.of_environment().writes and not self.path(digest).exists():
            self._make(encoder, digest, whose)
        Share(Processes.of_environment()).meet()
        return self.opened(digest)

    def opened(self, digest: str) -> Bank:
        """Return a bank that was made before.

        Raises:
            InputError: its file is not there.
        """
        try:
            return Bank(digest, np.load(self.path(digest), mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path(digest)}: the vectors of a snapshot are missing or damaged, and the model that made them is gone",
                hint="start anew with --fresh",
            ) from error

    def _digest(self, encoder: nn.Module) -> str:
        rows = hashlib.sha256(np.ascontiguousarray(self.rows.numbers).tobytes()).hexdigest()
        parts = [fingerprint(encoder), self.session.train_digest, rows, self.vector]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _make(self, encoder: nn.Module, digest: str, whose: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        unfinished = self.directory / f"{digest}.part"
        whole: Any = encoder
        shape = (len(self.rows), int(whole.config.hidden_size))
        vectors = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape)
        _reserve(unfinished)
        batches = -(-len(self.rows) // BATCH)
        for places, found in track(self._encoded(encoder), f"encode with {whose}", total=batches):
            if not bool(found.isfinite().all() and (found.norm(dim=1) > 0).all()):
                raise InputError(
                    f"loss 'contrastive': {whose} gives no {self.vector} vectors: they are zero, or not finite",
                    hint="a checkpoint without a trained pooler has vector mean only",
                )
            vectors[places] = found.cpu().numpy()
        vectors.flush()
        del vectors
        unfinished.replace(self.path(digest))

    @torch.no_grad()
    def _encoded(self, encoder: nn.Module) -> Iterator[tuple[list[int], Tensor]]:
        """Yield places and their vectors, rows of like length together."""
        device = next(encoder.parameters()).device
        names = accepted_inputs(encoder)
        for start in range(0, len(self.rows), CHUNK):
            rows = [self.rows[place] for place in range(start, min(start + CHUNK, len(self.rows)))]
            order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable").tolist()
            for part in (order[first : first + BATCH] for first in range(0, len(order), BATCH)):
                batch = collate([rows[place] for place in part], self.session.tokenizer)
                inputs = {name: batch[name].to(device) for name in names if name in batch}
                found = sentence_vectors(encoder(**inputs), inputs["attention_mask"], self.vector)
                yield [start + place for place in part], found


def _reserve(path: Path) -> None:
    """Take the room on disk that a file says it has: a full disk is an error now, and no fault of a mapped page later."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink()
        raise
