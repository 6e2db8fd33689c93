"""From a float32 ONNX file to an int8 one: all of it, or as much as the metric allows."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from compressor.errors import CompressorError
from compressor.model.artifact import Artifact
from compressor.model.runtime import open_session
from compressor.plugin import QuantizationData
from compressor_plugins.quantizers._layers import Products, products_of
from compressor_plugins.quantizers._onnxruntime import Calibration, Recipe, quantize_file
from compressor_plugins.quantizers._search import Search, keep_within


def quantized(artifact: Artifact, data: QuantizationData, path: Path, recipe: Recipe) -> Artifact:
    """Quantise a file, in part where all of it would cost more than ``max_drop``, and put it at ``path`` by one rename.

    Raises:
        CompressorError: onnxruntime cannot quantise the file, or the result gives other than finite numbers.
    """
    products = products_of(artifact.path)
    layers = products.layers
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(path.with_name(f".{path.name}.tmp")) as place:
        work = _Work(artifact.path, products, data, recipe, place)
        search = Search(layers, work.write, work.error, partial(data.drop, samples=recipe.samples))
        found = search.all() if recipe.max_drop is None else keep_within(search, recipe.max_drop)
        details = {
            "layers": len(layers),
            "quantized": len(layers) - len(found.excluded),
            "kept_float32": list(found.excluded),
            "reduce_range": recipe.reduce_range,
            **({"max_drop": recipe.max_drop, "drops": list(found.drops)} if found.drops else {}),
        }
        difference = work.difference(found.path)
        found.path.replace(path)
    return replace(
        artifact,
        path=path,
        format="onnx-int8",
        size_bytes=path.stat().st_size,
        max_abs_diff=difference,
        details=details,
    )


@contextmanager
def _workplace(place: Path) -> Iterator[Path]:
    """Make a directory that goes away; what a killed run left there goes first, so it has one name in every run."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place)


@dataclass(frozen=True)
class _Work:
    """Quantised files of one float32 file, in a directory that goes away."""

    source: Path
    products: Products
    data: QuantizationData
    recipe: Recipe
    place: Path

    def write(self, excluded: Collection[str]) -> Path:
        """Write the file in which all layers but some are quantised.

        Of a static one, products of two activations stay too: QDQ around them costs more than it gives.
        """
        path = self.place / "quantized.onnx"
        calibration = Calibration(self.data.batches, self.place / "ranges.json")
        names = [*excluded, *(self.products.others if self.recipe.static else ())]
        quantize_file(self.source, path, self.recipe, calibration, excluded=names)
        return path

    def difference(self, path: Path) -> float:
        """Return the largest absolute difference to the float32 file on the first calibration batch."""
        return float(max(np.abs(one - other).max() for one, other in self._pairs(path)))

    def error(self, path: Path) -> float:
        """Return the mean squared difference to the float32 file on the first calibration batch."""
        return float(np.mean([np.square(one - other).mean() for one, other in self._pairs(path)]))

    def _pairs(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        found = open_session(path).run(None, self._batch)
        if not all(np.isfinite(output).all() for output in found):
            raise CompressorError(f"{self.source.name}, quantised, gives outputs that are not finite")
        return zip(found, self._expected, strict=True)

    @cached_property
    def _batch(self) -> dict[str, np.ndarray]:
        return dict(next(iter(self.data.batches())))

    @cached_property
    def _expected(self) -> list[np.ndarray]:
        outputs: list[np.ndarray] = open_session(self.source).run(None, self._batch)
        return outputs
