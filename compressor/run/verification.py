"""Dense against compressed, both in onnxruntime: metric, latency, size, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from compressor.model.batches import collate
from compressor.model.runtime import SessionOptions, open_session
from compressor.plugin.components import Task
from compressor.recipe.options import Verification
from compressor.run.calls import plugin_call
from compressor.run.data import draw_examples, rows_digest
from compressor.verify.environment import environment
from compressor.verify.evaluate import Quality, Rows, compare, onnx_outputs, torch_outputs
from compressor.verify.gates import Limits, check_gates, failed
from compressor.verify.latency import LatencyRow, Protocol, Shape, measure
from compressor.verify.statistics import Resampling

if TYPE_CHECKING:
    from compressor.run.session import Session


@dataclass(frozen=True)
class Subject:
    """What is compared.

    Attributes:
        task: gives the metric.
        rows: tokenised, of the validation split.
        tokenizer: of the checkpoint.
        dense: ONNX file of the model as it was.
        compressed: ONNX file of the model as it is now.
        macs_ratio: encoder MACs, compressed divided by dense.
    """

    task: Task
    rows: Sequence[Mapping[str, Any]]
    tokenizer: PreTrainedTokenizerBase
    dense: Path
    compressed: Path
    macs_ratio: float


def verify(subject: Subject, options: Verification, *, seed: int) -> dict[str, Any]:
    """Measure and judge.

    Returns:
        Plain data: ``environment``, ``quality``, ``latency`` (a list of rows), ``bytes``, ``gates`` (a list) and ``passed``.

    Raises:
        CompressorError: rows, files or the execution provider cannot be used.
    """
    measured_on = environment()  # before the load average is our own
    resampling = Resampling(confidence=options.confidence, seed=seed)
    rows = draw_examples(subject.rows, options.samples, seed=seed)
    quality = measure_quality(subject, rows, options=options, resampling=resampling)
    latency = measure_latency(subject, options, resampling)
    sizes = {"dense": subject.dense.stat().st_size, "compressed": subject.compressed.stat().st_size}
    gates = check_gates(
        Limits(**options.gates.given()),
        quality=quality,
        latency=[row for row in latency if row.model == "compressed"],
        size=sizes["compressed"] / sizes["dense"],
        macs=subject.macs_ratio,
    )
    return {
        "environment": measured_on,
        "quality": {**asdict(quality), "rows_sha256": rows_digest(rows)},
        "latency": [asdict(row) for row in latency],
        "bytes": sizes,
        "gates": [asdict(gate) for gate in gates],
        "passed": not failed(gates),
    }


def quality_in_torch(session: Session, model: nn.Module, examples: int | None) -> dict[str, float]:
    """Return the task's metrics of a model on so many validation examples, in torch; none where none are loaded."""
    if not session.validation:
        return {}
    rows = draw_examples(session.validation, examples, seed=session.seed)
    models = [model, session.teacher] if session.task.label_free else [model]
    outputs = [
        torch_outputs(
            each, rows, task_output=session.task.output, collate=partial(collate, tokenizer=session.tokenizer)
        )
        for each in models
    ]
    with plugin_call(session.task, "evaluation"):
        return dict(session.task.metrics(session.task.rows(outputs[0], outputs[-1], rows)))


def measure_quality(subject: Subject, rows: Rows, *, options: Verification, resampling: Resampling) -> Quality:
    """Score both files on the same validation rows: all parts of an example, or none."""
    session_options = SessionOptions(provider=options.provider, threads=0)
    dense, compressed = (
        onnx_outputs(
            open_session(path, session_options),
            rows,
            task_output=subject.task.output,
            collate=partial(collate, tokenizer=subject.tokenizer),
        )
        for path in (subject.dense, subject.compressed)
    )
    with plugin_call(subject.task, "verification"):
        return compare(subject.task, compressed, dense, rows, resampling)


def measure_latency(subject: Subject, options: Verification, resampling: Resampling) -> list[LatencyRow]:
    """Time both files in turn at every asked shape and thread count."""
    return measure(
        {"dense": subject.dense, "compressed": subject.compressed},
        [Shape(batch, sequence) for batch in options.batch for sequence in options.sequence],
        threads=options.threads,
        provider=options.provider,
        protocol=Protocol(
            rounds=options.rounds, vocabulary=len(subject.tokenizer), untuned=True, resampling=resampling
        ),
    )
