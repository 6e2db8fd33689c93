"""The task's metric of an ONNX file beside the dense one, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, InputError
from compressor.model.outputs import raw_output
from compressor.progress import track
from compressor.verify.inference import call, feeds, input_types
from compressor.verify.statistics import DEFAULT, Interval, Resampling, bootstrap, mcnemar

if TYPE_CHECKING:
    from compressor.plugin.components import Task

Table = Mapping[str, np.ndarray]
Rows = Sequence[Mapping[str, Any]]
Collate = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]]
TaskOutput = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Quality:
    """What compression did to the model's answers.

    Attributes:
        rows: how many there are; examples, where some are cut into several.
        metric: name of the task's metric, or of the user's own, of which ``difference`` is.
        dense: every metric of the dense model.
        compressed: every metric of the compressed model.
        difference: compressed minus dense, with its paired bootstrap interval.
        churn: fraction of rows whose prediction changed, a class or an answer; None where it cannot be right or wrong.
        lost: fraction of rows that the dense model had right and the compressed one has wrong.
        gained: fraction of rows that the dense model had wrong and the compressed one has right.
        mcnemar: probability that ``lost`` and ``gained`` differ by so much where neither model is better (exact test,
            McNemar 1947).
        kl: mean of ``Task.divergences``, KL(dense || compressed) in nats, over the rows that the models were given;
            None for regressions and for tasks without labels.
        right: fraction of rows that the dense model has right; None where rows have no class each.
        commonest: fraction of rows of the commonest class: what a model that always answers it has right.
    """

    rows: int
    metric: str
    dense: Mapping[str, float]
    compressed: Mapping[str, float]
    difference: Interval
    churn: float | None = None
    lost: float | None = None
    gained: float | None = None
    mcnemar: float | None = None
    kl: float | None = None
    right: float | None = None
    commonest: float | None = None


def onnx_outputs(
    session: Any, rows: Rows, *, task_output: TaskOutput, collate: Collate, batch_size: int = 32
) -> np.ndarray:
    """Return the task's output of every row, shape (n, C) or as the task has it, in the rows' order.

    Args:
        session: of onnxruntime; is fed the inputs that its graph has.
        rows: tokenised.
        task_output: ``Task.output``.
        collate: pads rows into one batch.
        batch_size: rows per call.

    Raises:
        InputError: there are no rows, or the graph needs inputs they do not have.
    """
    types = input_types(session)

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(call(session, feeds(types, batch)))

    return _outputs(run, rows, task_output=task_output, collate=collate, batch_size=batch_size)


@torch.no_grad()
def torch_outputs(
    model: nn.Module, rows: Rows, *, task_output: TaskOutput, collate: Collate, batch_size: int = 32
) -> np.ndarray:
    """Return the task's output of every row, as ``onnx_outputs`` does; runs where the model is.

    Raises:
        InputError: there are no rows.
    """
    device = next(model.parameters()).device

    def run(batch: Mapping[str, Tensor]) -> Tensor:
        return raw_output(model, {name: tensor.to(device) for name, tensor in batch.items()}).cpu()

    return _outputs(run, rows, task_output=task_output, collate=collate, batch_size=batch_size)


def _outputs(
    run: Callable[[Mapping[str, Tensor]], Tensor],
    rows: Rows,
    *,
    task_output: TaskOutput,
    collate: Collate,
    batch_size: int,
) -> np.ndarray:
    if len(rows) == 0:
        raise InputError("there are no rows to evaluate")
    collected: dict[int, np.ndarray] = {}
    batches = list(_by_length(rows, batch_size))
    for numbers in track(batches, "evaluate"):
        batch = collate([rows[number] for number in numbers])
        collected.update(zip(numbers, task_output(run(batch), batch).numpy(), strict=True))
    return np.stack([collected[number] for number in range(len(rows))])


def _by_length(rows: Rows, batch_size: int) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, which wastes least on padding."""
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class OneFigure(Protocol):
    """A metric of the user's own, as ``Metric`` is."""

    @property
    def name(self) -> str:
        """What it is called."""

    def compute(self, rows: Mapping[str, np.ndarray]) -> float:
        """Return the figure."""


def compare(  # noqa: PLR0913 - the same rows twice, where the models read them differently, and all that judges them
    task: Task,
    outputs: np.ndarray,
    dense_outputs: np.ndarray,
    samples: Rows,
    resampling: Resampling = DEFAULT,
    *,
    metric: OneFigure | None = None,
    dense_samples: Rows | None = None,
) -> Quality:
    """Compare the compressed with the dense model on the same rows.

    Args:
        task: gives the metrics.
        outputs: of the compressed model, shape (n, C).
        dense_outputs: of the dense model, shape (n, C).
        samples: the n rows that both were given.
        resampling: of the rows of the task's table, for the interval of the difference.
        metric: of which the difference is, instead of the task's.
        dense_samples: the same rows as the dense model was given them, where its tokenizer is another.

    Raises:
        CompressorError: the two tokenizers leave other examples, so that nothing can be compared in pairs.
    """
    seen = samples if dense_samples is None else dense_samples
    compressed = task.rows(outputs, dense_outputs, samples)
    dense = task.rows(dense_outputs, dense_outputs, seen)
    count = len(next(iter(dense.values())))
    _check_pairs(compressed, dense, (samples, seen))

    def figures(table: Table) -> dict[str, float]:
        return task.metrics(table) | ({metric.name: metric.compute(table)} if metric else {})

    def gated(table: Table) -> float:
        return metric.compute(table) if metric else task.metrics(table)[task.metric]

    def difference(rows: np.ndarray) -> float:
        ours, theirs = ({name: value[rows] for name, value in table.items()} for table in (compressed, dense))
        return gated(ours) - gated(theirs)

    return Quality(
        rows=count,
        metric=metric.name if metric else task.metric,
        dense=figures(dense),
        compressed=figures(compressed),
        difference=bootstrap(difference, count, resampling),
        **_changes(compressed, dense),
        **_chance(dense),
        kl=_kl(task, outputs, dense_outputs) if _aligned(samples, seen) else None,
    )


def _changes(compressed: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray]) -> dict[str, float]:
    if "correct" not in compressed:
        return {}
    lost, gained = dense["correct"] & ~compressed["correct"], ~dense["correct"] & compressed["correct"]
    return {
        "churn": float(np.mean(compressed["predictions"] != dense["predictions"])),
        "lost": float(np.mean(lost)),
        "gained": float(np.mean(gained)),
        "mcnemar": mcnemar(int(lost.sum()), int(gained.sum())),
    }


def _chance(dense: Table) -> dict[str, float]:
    """Return how often the dense model is right, and how often a model that looks at nothing would be."""
    if not {"correct", "labels"} <= dense.keys() or dense["labels"].ndim != 1:
        return {}
    labels = dense["labels"]
    _, counts = np.unique(labels, return_counts=True)
    return {"right": float(np.mean(dense["correct"])), "commonest": float(counts.max() / len(labels))}


def _check_pairs(compressed: Table, dense: Table, rows: tuple[Rows, Rows]) -> None:
    """Check that row for row of two tables is about one example."""
    ours, theirs = ([one["example"] for one in each if "example" in one] for each in rows)
    counts = [len(next(iter(table.values()))) for table in (compressed, dense)]
    if counts[0] != counts[1] or dict.fromkeys(ours) != dict.fromkeys(theirs):
        raise CompressorError(
            f"the tokenizer of the compressed model leaves {counts[0]} examples, that of the dense one {counts[1]}; "
            "expected the same ones",
            hint="an example that one of them cuts into no token that counts cannot be compared: leave it out of the data",
        )


def _aligned(samples: Rows, seen: Rows) -> bool:
    """Tell whether outputs of single tokens, if the task has such, are of the same tokens: labels and windows say where."""
    return samples is seen or (
        len(samples) == len(seen)
        and all(
            one.get(column) == other.get(column)
            for one, other in zip(samples, seen, strict=True)
            for column in ("window", "labels")
        )
    )


def _kl(task: Task, outputs: np.ndarray, dense: np.ndarray) -> float | None:
    if task.label_free or outputs.shape[1] == 1:
        return None
    return float(task.divergences(*(torch.from_numpy(z).double() for z in (outputs, dense))).mean())
