"""What a quantizer is given beside the file. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class QuantizationData:
    """Rows to calibrate on, and a judge.

    Attributes:
        batches: gives the calibration batches anew at every call: the graph's inputs by name, each (B, T) int64, padded.
        drop: how much of the task's metric a file loses against the file that is quantised, absolute, on validation
            examples; less than 0 where it gains.
    """

    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]]
    drop: Callable[[Path], float]
