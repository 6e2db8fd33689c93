"""What a quantizer is given: calibration batches as onnxruntime takes them, and what a file loses of the metric."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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
from compressor.verify.evaluate import Rows, onnx_outputs
from compressor.verify.inference import feeds, input_types

if TYPE_CHECKING:
    from compressor.run.session import Session


def quantization_data(session: Session, artifact: Artifact) -> QuantizationData:
    """Return what a quantizer of an exported file works with.

    Args:
        session: has the calibration rows and the validation rows.
        artifact: the file.
    """
    judge = _Judge(session, artifact.path)
    types = input_types(open_session(artifact.path))

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for batch in session.calibration.batches(torch.device("cpu")):
            yield feeds(types, batch)

    return QuantizationData(batches=batches, drop=judge.drop)


class _Judge:
    """Compares files with one of them on the same rows."""

    def __init__(self, session: Session, source: Path) -> None:
        self._session, self._source = session, source
        self._expected: dict[int, np.ndarray] = {}

    def drop(self, path: Path, *, samples: int) -> float:
        """Return how much of the metric a file loses on so many validation examples, absolute."""
        task = self._session.task
        rows = draw_examples(self._session.validation, samples, seed=self._session.seed)
        if samples not in self._expected:
            self._expected[samples] = self._outputs(self._source, rows)
        expected, found = self._expected[samples], self._outputs(path, rows)
        with plugin_call(task, "quantisation"):
            before, after = (task.metrics(task.rows(one, expected, rows))[task.metric] for one in (expected, found))
        return before - after

    def _outputs(self, path: Path, rows: Rows) -> np.ndarray:
        pad = partial(collate, tokenizer=self._session.tokenizer)
        session = open_session(path, SessionOptions(threads=0))
        return onnx_outputs(session, rows, task_output=self._session.task.output, collate=pad)
