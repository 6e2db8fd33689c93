"""What a quantizer is given: calibration batches as onnxruntime takes them, and what a file loses of the metric."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from compressor.model.artifact import Artifact
from compressor.model.batches import collate
from compressor.model.runtime import SessionOptions, open_session
from compressor.plugin import QuantizationData
from compressor.run.calls import plugin_call
from compressor.run.data import draw_examples
from compressor.verify.evaluate import onnx_outputs

if TYPE_CHECKING:
    from compressor.run.session import Session


def quantization_data(session: Session, artifact: Artifact, *, samples: int) -> QuantizationData:
    """Return what a quantizer of an exported file works with.

    Args:
        session: has the calibration rows and the validation rows.
        artifact: the file.
        samples: validation examples that a drop is measured on.
    """
    judge = _Judge(session, artifact.path, samples)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for batch in session.calibration.batches(torch.device("cpu")):
            yield {name: batch[name].numpy() for name in artifact.input_names}

    return QuantizationData(batches=batches, drop=judge.drop)


class _Judge:
    """Compares files with one of them on the same rows."""

    def __init__(self, session: Session, source: Path, samples: int) -> None:
        self._session, self._source, self._samples = session, source, samples

    def drop(self, path: Path) -> float:
        """Return how much of the metric a file loses, absolute."""
        return self._metric(self._expected) - self._metric(self._outputs(path))

    @cached_property
    def _rows(self) -> list[dict[str, object]]:
        return [dict(row) for row in draw_examples(self._session.validation, self._samples, seed=self._session.seed)]

    @cached_property
    def _expected(self) -> np.ndarray:
        return self._outputs(self._source)

    def _outputs(self, path: Path) -> np.ndarray:
        task = self._session.task
        pad = partial(collate, tokenizer=self._session.tokenizer)
        session = open_session(path, SessionOptions(threads=0))
        return onnx_outputs(session, self._rows, task_output=task.output, collate=pad)

    def _metric(self, outputs: np.ndarray) -> float:
        task = self._session.task
        with plugin_call(task, "quantisation"):
            return task.metrics(task.rows(outputs, self._expected, self._rows))[task.metric]
