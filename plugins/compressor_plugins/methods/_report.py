"""What methods say of a run: seconds by phase, what is kept, what became of each sublayer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from compressor.model import Masks
from compressor.model.costs import encoder_macs, kept_macs
from compressor.prune import SublayerFit

if TYPE_CHECKING:
    from compressor.run.session import Session


class Stopwatch:
    """Seconds spent, by phase; a phase that is entered again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a ``with`` block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


def dense_macs(session: Session, sequence: float) -> float:
    """Return the encoder MACs of the model the run started from, which targets are fractions of."""
    return encoder_macs(session.teacher, session.family.groups(session.teacher), sequence)


def figures(session: Session, masks: Masks, fits: Sequence[SublayerFit], sequence: float) -> dict[str, Any]:
    """Return what a pruning kept, as plain data, counted at ``sequence`` tokens."""
    kept = [(group.kind, int(masks.keep[group.name].sum())) for group in session.groups]
    return {
        "macs_kept": kept_macs(session.model, session.groups, masks.keep, sequence) / dense_macs(session, sequence),
        "sequence": sequence,
        "heads_kept": [count for kind, count in kept if kind == "heads"],
        "neurons_kept": [count for kind, count in kept if kind == "ffn_neurons"],
        "tuning": [asdict(fit) for fit in fits],
    }
