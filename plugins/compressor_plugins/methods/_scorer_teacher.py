"""What a scorer learns first: which heads to keep for all texts together, as a search by its own objective finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import masked
from compressor.progress import track
from compressor_plugins.methods._head_quota import lowest_removed
from compressor_plugins.methods._head_scores import output_norms
from compressor_plugins.methods._relations import relation_loss
from compressor_plugins.methods._sentences import channel_of, sentence_vectors

if TYPE_CHECKING:
    from compressor_plugins.methods._scorer_texts import Texts
    from compressor_plugins.methods._sentences import Sentences

WATCHED = 128
"""Sentences of a task that the search looks at."""
COMPARED = 32
"""Sentences whose relations to each other it keeps."""


def lessons(rows: Sentences, texts: Sequence[Texts], *, swaps: int, seed: int) -> dict[str, Tensor]:
    """Return what every head should score, a number in (0, 1), shape (H,), per ``channel.group``; higher = keep.

    Half of a layer's heads are kept, at first those that add most to the hidden states (``output_norms``). One kept and one
    removed head of a layer change places wherever that lowers the relation loss over all texts of the mode, by more than the
    standard error over batches; then kept heads come before removed ones, each by their norms.

    Args:
        rows: whose model and groups count.
        texts: of pairs and of single sentences; each mode has a mask of its own.
        swaps: how many are tried.
        seed: of the sentences and of the swaps.
    """
    found: dict[str, Tensor] = {}
    for pair in (True, False):
        channel = channel_of(pair=pair)
        draw = np.random.default_rng([seed, channel])
        watched = tuple(_watched(rows, own, draw) for own in texts if own.task.pairs == pair)
        if watched:
            norms = _norms(watched)
            keep = Search(watched, {name: lowest_removed(own, len(own) // 2) for name, own in norms.items()}).run(
                swaps, draw
            )
            found |= {f"{channel}.{name}": _ranks(keep[name], own) for name, own in norms.items()}
    return found


def _watched(rows: Sentences, texts: Texts, draw: np.random.Generator) -> Sentences:
    chosen = texts.drawn(WATCHED, draw)
    return replace(rows, rows=chosen[: len(chosen) // 2 * 2], batch_size=COMPARED, pair=texts.task.pairs)


def _norms(watched: Sequence[Sentences]) -> dict[str, Tensor]:
    parts = [output_norms(own) for own in watched]
    return {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}


def _ranks(keep: Tensor, norms: Tensor) -> Tensor:
    """Return the places of a layer's heads between 0 and 1, at equal distances: kept ones last, each by their norms."""
    order = np.lexsort((norms.numpy(), keep.numpy()))
    places = torch.empty(len(keep))
    places[torch.from_numpy(order)] = (torch.arange(len(keep)) + 0.5) / len(keep)
    return places


@dataclass
class Search:
    """A search for the heads of every layer without which relations change least.

    Attributes:
        watched: sentences of each task.
        keep: heads that are kept now, bool, (H,), per group name.
    """

    watched: Sequence[Sentences]
    keep: Mapping[str, Tensor]

    def run(self, swaps: int, draw: np.random.Generator) -> Mapping[str, Tensor]:
        """Try swaps of random heads, and keep to those that help: of many tries some help a few batches by chance."""
        best = self.losses(self.keep) if swaps else np.zeros(1)
        for _ in track(range(swaps), "Searching heads to keep", total=swaps):
            changed = self._swapped(draw)
            losses = self.losses(changed)
            if is_lower(losses - best):
                self.keep, best = changed, losses
        return self.keep

    def _swapped(self, draw: np.random.Generator) -> Mapping[str, Tensor]:
        names = [name for name, keep in self.keep.items() if keep.any() and not keep.all()]
        if not names:
            return self.keep
        name = names[int(draw.integers(len(names)))]
        keep = self.keep[name].clone()
        kept, removed = keep.nonzero().flatten(), (~keep).nonzero().flatten()
        keep[kept[int(draw.integers(len(kept)))]] = False
        keep[removed[int(draw.integers(len(removed)))]] = True
        return {**self.keep, name: keep}

    @torch.no_grad()
    def losses(self, keep: Mapping[str, Tensor]) -> np.ndarray:
        """Return the relation loss of every batch of every task, in units of its task's with the first masks."""
        parts = [self._losses(index, keep) for index in range(len(self.watched))]
        return np.concatenate([part / max(first, 1e-12) for part, first in zip(parts, self._first, strict=True)])

    @cached_property
    @torch.no_grad()
    def _first(self) -> list[float]:
        return [float(self._losses(index, self.keep).mean()) for index in range(len(self.watched))]

    @cached_property
    @torch.no_grad()
    def _whole(self) -> list[list[tuple[dict[str, Tensor], Tensor]]]:
        """Return the batches of each task, with their vectors by the whole model."""
        return [
            [(batch, sentence_vectors(own.model, batch, pair=own.pair)) for batch in own.batches()]
            for own in self.watched
        ]

    def _losses(self, index: int, keep: Mapping[str, Tensor]) -> np.ndarray:
        own, whole = self.watched[index], self._whole[index]  # looked at before heads are masked
        with masked(own.model, own.groups, {name: mask.to(own.device) for name, mask in keep.items()}):
            losses = [
                relation_loss(sentence_vectors(own.model, batch, pair=own.pair), full, pair=own.pair)
                for batch, full in whole
            ]
        return torch.stack(losses).double().cpu().numpy()


def is_lower(differences: np.ndarray) -> bool:
    """Tell whether the mean is below 0 by more than its standard error; of one difference, whether it is below 0."""
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return bool(differences.mean() < -error)
