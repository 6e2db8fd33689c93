"""Dense against compressed, all files in onnxruntime: metric, latency, size, gates, and which file to serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from compressor.errors import CompressorError
from compressor.model.batches import collate
from compressor.model.runtime import SessionOptions, open_session
from compressor.plugin.components import Task
from compressor.progress import announced
from compressor.recipe.options import Verification
from compressor.run import variants
from compressor.run.calls import NamedMetric, plugin_call
from compressor.run.data import draw_examples, rows_digest
from compressor.verify.doubts import doubts
from compressor.verify.environment import environment
from compressor.verify.evaluate import Quality, Rows, compare, onnx_outputs, torch_outputs
from compressor.verify.gates import TIE, Limits, check_gates, failed
from compressor.verify.latency import LatencyRow, measure
from compressor.verify.memory import measure_memory
from compressor.verify.rounds import Protocol, Shape
from compressor.verify.section import portable
from compressor.verify.serving import fastest, recommend
from compressor.verify.statistics import Resampling

if TYPE_CHECKING:
    from compressor.run.session import Session


@dataclass(frozen=True)
class Reading:
    """The same validation split as another tokenizer cuts it."""

    rows: Sequence[Mapping[str, Any]]
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Subject:
    """What is compared.

    Attributes:
        task: gives the metric.
        rows: tokenised, of the validation split.
        tokenizer: of the checkpoint.
        files: ONNX files by the names of ``variants.py``; ``"dense"`` and ``"compressed"`` are among them.
        macs_ratio: encoder MACs, compressed divided by dense.
        dense: what the dense files read, where the compressed model's vocabulary was trimmed; None = the same.
    """

    task: Task
    rows: Sequence[Mapping[str, Any]]
    tokenizer: PreTrainedTokenizerBase
    files: Mapping[str, Path]
    macs_ratio: float
    dense: Reading | None = None

    def reading(self, name: str) -> Reading:
        """Return what a file of ``files`` reads."""
        own = Reading(self.rows, self.tokenizer)
        return self.dense or own if _side(name) == "dense" else own


def _side(name: str) -> str:
    """Return whose vocabulary a file of ``variants.py`` reads: ``"dense"`` or ``"compressed"``."""
    return "dense" if name.startswith("dense") else "compressed"


def verify(subject: Subject, options: Verification, *, seed: int) -> dict[str, Any]:
    """Measure and judge.

    Returns:
        Plain data: ``environment``, ``quality`` of the model that was asked for, ``variants`` and ``latency`` (lists),
        ``serve``, ``bytes``, ``warnings`` and ``gates`` (lists), and ``passed``.

    Raises:
        CompressorError: rows, files or the execution provider cannot be used.
    """
    subject = replace(subject, files=variants.runnable(subject.files, options.provider))
    measured_on = environment()  # before the load average is our own
    resampling = Resampling(confidence=options.confidence, seed=seed)
    drawn = {
        name: draw_examples(subject.reading(name).rows, options.samples, seed=seed) for name in ("dense", "compressed")
    }
    qualities = measure_quality(subject, drawn, options=options, resampling=resampling)
    latency = measure_latency(subject, options, resampling)
    asked = variants.final(subject.files)
    sizes = {name: path.stat().st_size for name, path in subject.files.items()}
    shape = Shape(options.batch[0], options.sequence[0])
    memory = _memory(subject, shape, SessionOptions(provider=options.provider, threads=options.threads[0]))
    gates = check_gates(
        Limits(**options.gates.given()),
        quality=qualities[asked],
        latency=_best_rows(latency, variants.same_answers(asked, subject.files)),
        size=sizes[asked] / sizes["dense"],
        macs=subject.macs_ratio,
    )
    return {
        "environment": measured_on,
        "quality": {
            "model": asked,
            **asdict(qualities[asked]),
            **({"metric_options": options.metric.options()} if options.metric else {}),
            "rows_sha256": rows_digest(drawn["dense"]),
        },
        "variants": [
            {
                "model": name,
                "file": path.name,
                "bytes": sizes[name],
                "memory": memory.get(name),
                "quality": _plain(qualities.get(name)),
            }
            for name, path in subject.files.items()
        ],
        "latency": [asdict(row) for row in latency],
        "serve": recommend(
            latency,
            _servable(subject.files),
            rejected=_rejected(qualities, subject.files, limit=options.gates.metric_drop),
        ),
        "bytes": {"dense": sizes["dense"], "compressed": sizes[asked]},
        "warnings": list(doubts(qualities[asked])),
        "gates": [asdict(gate) for gate in gates],
        "passed": not failed(gates),
    }


def _memory(subject: Subject, shape: Shape, options: SessionOptions) -> dict[str, dict[str, float]]:
    """Return what files need in memory; what cannot be measured spoils no verification."""
    try:
        return measure_memory(subject.files, shape, options)
    except CompressorError as error:
        announced.warning("memory is not in the report: %s", error)
        return {}


def _plain(quality: Quality | None) -> dict[str, Any] | None:
    return asdict(quality) if quality else None


def _servable(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: path.name for name, path in files.items() if name.startswith("compressed")}


def _rejected(qualities: Mapping[str, Quality], models: Iterable[str], *, limit: float | None) -> dict[str, str]:
    """Return what loses more than the gate allows, and how much; a fused file loses what the portable one does."""
    if limit is None:
        return {}
    judged = {name: qualities.get(name) or qualities.get(portable(name)) for name in models}
    return {
        name: f"it loses {-quality.difference.value:.4f} of the {quality.metric}, the gate allows {limit:g}"
        for name, quality in judged.items()
        if quality and -quality.difference.value > limit + TIE
    }


def _best_rows(rows: Sequence[LatencyRow], models: Sequence[str]) -> list[LatencyRow]:
    """Return the rows of the fastest file and options that give the answers that were asked for."""
    best = fastest(rows, models)
    return [row for row in rows if (row.model, row.slow_fusion) == best]


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


def measure_quality(
    subject: Subject, drawn: Mapping[str, Rows], *, options: Verification, resampling: Resampling
) -> dict[str, Quality]:
    """Score the files against the dense one, on the same validation rows: all parts of an example, or none.

    ``drawn`` has the rows in the ids of the dense and of the compressed files, under these two names.

    On the CPU the fused ones are left out: there they were compared with torch when they were written.
    """
    session_options = SessionOptions(provider=options.provider, threads=0)
    outputs = {
        name: onnx_outputs(
            open_session(path, session_options),
            drawn[_side(name)],
            task_output=subject.task.output,
            collate=partial(collate, tokenizer=subject.reading(name).tokenizer),
        )
        for name, path in subject.files.items()
        if options.provider != "cpu" or portable(name) == name
    }
    metric = NamedMetric(options.metric) if options.metric else None
    with plugin_call(subject.task, "verification"):
        return {
            name: compare(
                subject.task,
                found,
                outputs["dense"],
                drawn[_side(name)],
                resampling,
                dense_samples=drawn["dense"],
                metric=metric,
            )
            for name, found in outputs.items()
            if name != "dense"
        }


def measure_latency(subject: Subject, options: Verification, resampling: Resampling) -> list[LatencyRow]:
    """Time all files in turn at every asked shape and thread count."""
    return measure(
        subject.files,
        [Shape(batch, sequence) for batch in options.batch for sequence in options.sequence],
        threads=options.threads,
        provider=options.provider,
        protocol=Protocol(
            rounds=options.rounds,
            vocabulary=min(len(subject.reading(name).tokenizer) for name in ("dense", "compressed")),
            resampling=resampling,
            baselines=variants.BASELINES,
        ),
    )
