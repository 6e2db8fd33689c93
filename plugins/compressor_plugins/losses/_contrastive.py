"""CAP's contrastive loss at work: a training's vectors against banks of vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.plugin import LossRun
from compressor_plugins.losses._banks import Bank, Encoding
from compressor_plugins.losses._contrast import Vectors, contrast, sentence_vectors
from compressor_plugins.losses._pretrained import pretrained_encoder
from compressor_plugins.losses.contrastive import one_class

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor.train import NumberedRows
    from compressor_plugins.losses.contrastive import Contrastive


def has_classes(session: Session) -> bool:
    """Tell whether the session's model chooses between classes."""
    config: Any = session.model.config
    return one_class(session.task) and config.num_labels > 1


class AgainstBanks(LossRun):
    """The contrastive loss at work.

    Attributes:
        options: of the loss.
        session: gives the dense model, the tokenizer, the directory and the seed.
        snapshots: banks of the model in training, oldest first.
    """

    def __init__(self, options: Contrastive, session: Session) -> None:
        self.options, self.session = options, session
        self.snapshots: list[Bank] = []
        self._fixed: list[Bank] = []

    def prepare(self, student: nn.Module, rows: NumberedRows) -> None:
        """Make, or find, the banks that stay as they are."""
        options, session = self.options, self.session
        self._encoding = Encoding(session, rows, options.vector)
        self._places = places_of(rows.numbers)
        labels = rows.column("labels") if has_classes(session) and options.supervised else None
        self._labels = None if labels is None else torch.as_tensor(np.asarray(labels))
        self._fixed = []
        if "PrC" in options.modules:
            self._fixed.append(
                self._encoding.bank(pretrained_encoder(options, session, student), "the pre-trained encoder")
            )
        if "FiC" in options.modules:
            self._fixed.append(self._encoding.bank(session.teacher, "the dense model"))

    def snapshot(self, student: nn.Module) -> None:
        """Add a bank of the model as it is now."""
        if "SnC" in self.options.modules:
            made = self._encoding.bank(student, "a snapshot")
            self.snapshots = [*self.snapshots, made][-self.options.max_snapshots :]

    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002 - the contract's
        """Return the sum of the banks' terms."""
        vectors = sentence_vectors(student, batch["attention_mask"], self.options.vector)
        anchors = Vectors(vectors, batch["index"], batch["labels"] if self._labels is not None else None)
        total = vectors.sum() * 0.0  # where there is no bank yet, nothing is lost
        for banks in ([bank] for bank in self._fixed):
            total = total + self._loss(anchors, banks)
        return total + self._loss(anchors, self.snapshots) if self.snapshots else total

    def _loss(self, anchors: Vectors, banks: Sequence[Bank]) -> Tensor:
        terms = contrast(anchors, self._candidates(anchors, banks), self.options.temperature)
        unsupervised, supervised = terms.means(self.options.norm)
        return self.options.unsupervised * unsupervised + self.options.supervised * supervised

    def _candidates(self, anchors: Vectors, banks: Sequence[Bank]) -> Vectors:
        """Return the batch's rows and others, of every bank."""
        own = self._places[anchors.index.cpu().numpy()]
        places = np.concatenate([own, self._extra(own, self.options.extra_examples // len(banks))])
        device = anchors.index.device
        vectors = torch.cat([bank.at(places) for bank in banks]).to(device)
        numbers = torch.from_numpy(self._encoding.rows.numbers[places]).repeat(len(banks)).to(device)
        labels = None if self._labels is None else self._labels[places].repeat(len(banks)).to(device)
        return Vectors(vectors, numbers, labels)

    def _extra(self, own: np.ndarray, count: int) -> np.ndarray:
        """Draw places of other rows, without replacement; the batch and the seed alone decide, so nothing needs saving."""
        rows = len(self._encoding.rows)
        drawn = np.random.default_rng([self.session.seed, *own.tolist()]).choice(
            rows, size=min(rows, count + len(own)), replace=False
        )
        return drawn[~np.isin(drawn, own)][:count]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the digests that name the files of the banks, each shape (R, 32)."""
        named = {"fixed": self._fixed, "snapshots": self.snapshots}
        digests = {name: [list(bytes.fromhex(bank.digest)) for bank in banks] for name, banks in named.items() if banks}
        return {name: torch.tensor(values, dtype=torch.uint8) for name, values in digests.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Find the snapshots again.

        Raises:
            InputError: the pre-trained encoder is another one now, or a snapshot's file is gone.
        """
        named = {name: [bytes(digest).hex() for digest in values.tolist()] for name, values in state.items()}
        if named and named.get("fixed", []) != [bank.digest for bank in self._fixed]:
            raise InputError(
                "loss 'contrastive': the pre-trained encoder is another one than when this training began",
                hint="bring it back, or start anew with --fresh",
            )
        self.snapshots = [self._encoding.opened(digest) for digest in named.get("snapshots", [])]


def places_of(numbers: np.ndarray) -> np.ndarray:
    """Return a table from row numbers to places, shape (largest number + 1,); -1 = no such row."""
    table = np.full(int(np.max(numbers)) + 1, -1, dtype=np.int64)
    table[numbers] = np.arange(len(numbers))
    return table
