"""The contract of quantizers, and what one is given beside the file. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from compressor.plugin.component import Component

if TYPE_CHECKING:
    import numpy as np

    from compressor.model.artifact import Artifact


class MetricDrop(Protocol):
    """Says what a file loses of the metric."""

    def __call__(self, path: Path, *, samples: int) -> float:
        """Return it, absolute, on so many validation examples."""


@dataclass(frozen=True)
class QuantizationData:
    """Rows to calibrate on, and a judge.

    Attributes:
        batches: gives the calibration batches anew at every call: the graph's inputs by name, each (B, T) int64, padded.
        drop: how much of the task's metric a file loses against the file that is quantised, absolute, on so many
            validation examples; less than 0 where it gains.
    """

    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]]
    drop: MetricDrop


class Quantizer(Component):
    """Makes an int8 file from an exported one."""

    kind: ClassVar[str] = "quantizer"

    def check(self) -> None:
        """Say, before hours are spent on steps that come first, what this machine makes of the options.

        Raises:
            InputError: they cannot be used here; says which, and what to write.
        """

    @abc.abstractmethod
    def quantize(self, artifact: Artifact, data: QuantizationData, path: Path) -> Artifact:
        """Write the quantised model to ``path``.

        Args:
            artifact: the portable file of float32.
            data: calibration batches, and how much of the metric a file loses.
            path: where the file appears, by one rename.

        Raises:
            CompressorError: the file cannot be quantised.
        """
