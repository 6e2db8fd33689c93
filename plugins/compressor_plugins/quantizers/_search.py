"""Which layers stay float32, so that quantising costs no more of the metric than it may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import CompressorError
from compressor.progress import track
from compressor_plugins.quantizers._layers import Layer


@dataclass(frozen=True)
class Found:
    """A quantised file.

    Attributes:
        path: of the file.
        excluded: names of the layers that stay float32, in the order in which they were excluded.
        drops: the metric's drop with none of them excluded, with the first, with two, ...; empty where it was not asked.
    """

    path: Path
    excluded: tuple[str, ...] = ()
    drops: tuple[float, ...] = ()


@dataclass(frozen=True)
class Search:
    """What a search can do.

    Attributes:
        layers: that can be quantised.
        write: writes the file in which all layers but the named ones are quantised.
        error: how far a file's outputs are from the float32 file's; any unit.
        drop: how much of the metric a file loses, absolute.
    """

    layers: Sequence[Layer]
    write: Callable[[Collection[str]], Path]
    error: Callable[[Path], float]
    drop: Callable[[Path], float]

    def all(self) -> Found:
        """Quantise every layer."""
        return Found(self.write(()))

    def order(self) -> list[str]:
        """Return the layers' names, the cheapest exclusion first.

        A layer is cheap to exclude when it does much of the harm for few of the multiplications: quantised alone, its error
        by its MACs.
        """
        names = [layer.name for layer in self.layers]
        alone = track(self.layers, "sensitivity of layers")
        harm = {one.name: self.error(self.write([n for n in names if n != one.name])) / one.macs for one in alone}
        return sorted(names, key=lambda name: -harm[name])


def keep_within(search: Search, max_drop: float) -> Found:
    """Exclude layers one by one until the metric drops by no more than ``max_drop``.

    Raises:
        CompressorError: it drops by more with all layers excluded, which quantised embedding tables alone can do.
    """
    path = search.write(())
    drops, excluded = [search.drop(path)], list[str]()
    order = iter(search.order() if drops[-1] > max_drop else ())
    while drops[-1] > max_drop and len(excluded) < len(search.layers):
        excluded.append(next(order))
        path = search.write(excluded)
        drops.append(search.drop(path))
    if drops[-1] > max_drop:
        raise CompressorError(
            f"with every layer in float32 the metric still drops by {drops[-1]:.4g}; max_drop allows {max_drop:g}",
            hint="set embeddings: false, or raise max_drop",
        )
    return Found(path, tuple(excluded), tuple(drops))
