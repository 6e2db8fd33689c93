"""The dense model as students follow it: its states on a shelf, and every batch with what its layers are called with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.surgery import Family
from compressor.prune.fitting import held_out
from compressor.prune.layerwise import (
    Batch,
    LayerCall,
    Run,
    Sublayer,
    TokenWeights,
    layer_names,
    record,
    replay,
    watched,
    without,
)
from compressor.prune.shelf import Shelf

STATES = 1 << 30
"""Bytes on the shelf up to which all states of a batch are kept from the first pass; later batches are run again."""
CALLS = 1 << 25
"""Bytes in memory up to which batches and what layers are called with are kept; later ones are made again every time."""


@dataclass(frozen=True)
class Visit:
    """One batch, what each layer is called with, and which of its rows are held out (B,)."""

    number: int
    batch: Batch
    calls: dict[str, LayerCall]
    held: Tensor

    @property
    def size(self) -> int:
        """Return how many bytes it holds; what layers share counts once."""
        given = chain.from_iterable((*call.args, *call.kwargs.values()) for call in self.calls.values())
        parts = chain(
            self.batch.values(), [self.held], *(each if isinstance(each, tuple | list) else [each] for each in given)
        )
        storages = [each.untyped_storage() for each in parts if isinstance(each, Tensor)]
        return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


class Teacher:
    """The model as it comes in: what students should come close to.

    Args:
        model: in eval mode; stays as it is.
        family: the table of its architecture.
        batches: gives the calibration batches on the model's device, the same ones in the same order every time.
        shelf: where states rest.
        token_weights: from a batch and a group to how much each token counts in its sublayer, shape (B, T).
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        *,
        batches: Callable[[], Iterable[Batch]],
        shelf: Shelf,
        token_weights: TokenWeights,
    ) -> None:
        self.model, self.family, self.shelf = model, family, shelf
        self.batches, self.token_weights = batches, token_weights
        self.groups = family.groups(model)
        self.layers = layer_names(self.groups)
        self._calls: dict[str, LayerCall] = {}
        self._stored: set[int] = set()
        self._visits: list[Visit] = []
        self._count = 0

    def start(self, run: Run | None = None) -> None:
        """Store what the lowest layer reads and, of as many batches as there is room for, all that sublayers read and give.

        Args:
            run: see ``record``: the caller may want more of the same pass.
        """
        own = [group for group in self.groups if group.units]
        first, room = 0, CALLS
        for number, batch in enumerate(self.batches()):
            with watched(self.model, own) as seen:
                hidden, self._calls = record(self.model, self.layers, batch, run)
            self.shelf.put("bottom", number, hidden)
            if self.shelf.size + 2 * len(own) * hidden.numel() * hidden.element_size() <= STATES:
                self._stored.add(number)
                self._store(own, seen, number)
            else:
                self.shelf.put("teacher", number, hidden)
            visit = Visit(number, batch, self._calls, held_out(first, len(hidden), hidden.device))
            first, room = first + len(hidden), room - visit.size
            if room >= 0:
                self._visits.append(visit)
            self._count += 1

    def visits(self) -> Iterator[Visit]:
        """Yield every batch with the calls of its layers, which cost the embeddings alone, or nothing."""
        yield from self._visits
        if len(self._visits) == self._count:
            return
        first = sum(len(visit.held) for visit in self._visits)
        for number, batch in enumerate(self.batches()):
            if number < len(self._visits):
                continue
            with without(self.model, self._calls, self.layers):
                hidden, calls = record(self.model, self.layers, batch)
            yield Visit(number, batch, calls, held_out(first, len(hidden), hidden.device))
            first += len(hidden)

    def own(self, layer: str) -> list[PrunableGroup]:
        """Return the groups of a layer that have units."""
        return [group for group in self.groups if group.layer == layer and group.units]

    def state(self, name: Literal["read", "wanted"], group: PrunableGroup, number: int) -> Tensor:
        """Return what a sublayer of the layer that was passed last reads, or gives before LayerNorm, shape (B, T, D)."""
        return self.shelf.get(self.place(name, group, number), number)

    def place(self, name: str, group: PrunableGroup, number: int) -> str:
        """Return the name on the shelf of a state of a batch; run again, every layer takes the places of the last."""
        return f"{name}-{group.name if number in self._stored else group.kind}"

    @torch.no_grad()
    def advance(self, layer: str) -> None:
        """Let ``state`` be that of a layer: run it on the batches whose states were not stored."""
        own = self.own(layer)
        with watched(self.model, own) as seen:
            for visit in self.visits():
                if visit.number not in self._stored:
                    hidden = self.shelf.get("teacher", visit.number)
                    self.shelf.put("teacher", visit.number, replay(self.model, layer, visit.calls[layer], hidden))
                    self._store(own, seen, visit.number)

    @torch.no_grad()
    def _store(self, groups: Iterable[PrunableGroup], seen: Mapping[str, Sublayer], number: int) -> None:
        for group in groups:
            passed = seen[group.name]
            self.shelf.put(self.place("read", group, number), number, passed.read)
            self.shelf.put(self.place("wanted", group, number), number, passed.before_norm)
