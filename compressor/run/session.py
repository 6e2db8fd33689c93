"""The one mutable object: what a run knows at this moment. Only ``run/steps.py`` assigns to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from compressor.model import shapes
from compressor.model.latency_table import LatencyTable, Workload
from compressor.model.masks import Masks
from compressor.model.outputs import accepted_inputs
from compressor.run.latency import Request, exporter_of, latency_table
from compressor.run.verification import quality_in_torch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from compressor.model.artifact import Artifact
    from compressor.model.groups import PrunableGroup
    from compressor.plugin.components import ModelFamily, Pruned, Task
    from compressor.recipe.plan import Plan, Step
    from compressor.run.data import Calibration


GLANCE = 512
"""Examples that a training is judged on, before and after: a glance, where verification takes all."""


@dataclass(frozen=True)
class Outcome:
    """What one step did: the step, how long it took, and its figures (plain data, as in ``report.json``)."""

    step: Step
    seconds: float
    metrics: Mapping[str, Any]


@dataclass
class Session:
    """What a pruning method, an exporter and a check can read.

    Attributes:
        plan: the plan being run.
        run_dir: directory of this run; a step may write below ``run_dir / "stages" / step.slug``.
        device: where tensors go.
        model: the model as it is now, on ``device``, in eval mode, float32.
        teacher: the dense model, frozen, on ``device``: what the run started from, or what ``train`` before any pruning
            made of it.
        tokenizer: of the source checkpoint, or what trimming made of it.
        family: the table of the model's architecture.
        task: data and metric.
        calibration: rows drawn once, by seed, from the task's train split; trimming cuts the same texts anew.
        source: directory of the checkpoint, in the hub's cache where it is a model of the hub.
        trimmed_tokenizer: directory of the tokenizer's files, where a step trimmed the vocabulary.
        untrimmed: this session before that: the dense model as it is, its tokenizer and its rows. In this one the
            teacher has the tokens only that the model has, so that both read the same rows.
        kept_tokens: ids of the model's tokens in the vocabulary of the source, where a step trimmed it.
        validation: every row of the task's validation split, where a step verifies, quantises or trains.
        artifacts: exported files by the stems of their names, ``"model"`` and ``"dense"`` among them.
        outcomes: of the finished steps, in order.
        given: prunings that a sweep has done already, by the slug of the step that takes them.
        train_rows: every row of the task's train split, where a step reads them all.
        train_digest: sha256 of them.
        read_digests: sha256 of the train rows of each task that a method reads whole, by the slug of its step.
        weight_masks: element-wise masks by parameter name of ``model``, each of its parameter's shape; what they remove
            is zero in ``model`` and stays zero while it is trained.
        aligned: those of them that follow a grid (N:M, blocks), which taking out what they emptied would shift.
    """

    plan: Plan
    run_dir: Path
    device: torch.device
    model: nn.Module
    teacher: nn.Module
    tokenizer: PreTrainedTokenizerBase
    family: ModelFamily
    task: Task
    calibration: Calibration
    source: Path
    validation: Sequence[Mapping[str, Any]] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    given: Mapping[str, Pruned] = field(default_factory=dict)
    train_rows: Sequence[Mapping[str, Any]] = ()
    train_digest: str = ""
    read_digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weight_masks: Masks = field(default_factory=lambda: Masks({}))
    aligned: frozenset[str] = frozenset()
    trimmed_tokenizer: Path | None = None
    untrimmed: Session | None = None
    kept_tokens: tuple[int, ...] | None = None

    @property
    def seed(self) -> int:
        """Seed of everything random in this run."""
        return self.plan.recipe.seed

    @property
    def tokenizer_files(self) -> Path:
        """Directory with the files of ``tokenizer``."""
        return self.trimmed_tokenizer or self.source

    @property
    def dense(self) -> Session:
        """The session as the dense model sees it: its ``teacher`` is the whole one, and the rows are in its ids."""
        return self.untrimmed or self

    @property
    def stage(self) -> Path:
        """Directory of the step that is being done."""
        return self.run_dir / "stages" / self.plan.steps[len(self.outcomes)].slug

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model is fed: ``input_ids``, ``attention_mask`` and, where both sides know them, token types."""
        return tuple(name for name in accepted_inputs(self.model) if name in self.calibration.rows[0])

    @property
    def masks(self) -> Masks:
        """What is left of the units of ``teacher``, per group; all True before the first pruning, none of lost layers."""
        groups = self.family.groups(self.teacher)
        layers = shapes.layer_ids(self.teacher.config, groups)
        before, now = (shapes.kept_ids(model.config, groups, layers) for model in (self.teacher, self.model))
        return Masks({name: torch.isin(torch.tensor(ids), torch.tensor(now[name])) for name, ids in before.items()})

    def quality(self, model: nn.Module, *, examples: int | None = GLANCE) -> dict[str, float]:
        """Return the task's metrics of a model in torch; none where the run neither trains nor verifies.

        Args:
            model: any of this run.
            examples: of the validation split, drawn by seed; None = all.
        """
        return quality_in_torch(self, model, examples)

    def latency_table(
        self, *, batch: int, sequence: int, threads: int = 1, provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    ) -> LatencyTable:
        """Return what the blocks of the dense model cost in onnxruntime; measured once, then kept.

        Where the run started from a pruned model, the table is still the dense one's of its config: what the teacher
        takes is then ``table.predict`` of its counts, not ``table.dense_ms``. Where layers were dropped since, predictions
        still hold their residuals and LayerNorms: a little too high.

        Args:
            batch: samples per call.
            sequence: tokens per sample, none of them padding.
            threads: intra-op threads; 0 = onnxruntime's own choice.
            provider: of onnxruntime.

        Raises:
            CompressorError: it cannot be measured.
        """
        workload = Workload(batch=batch, sequence=sequence, threads=threads, provider=provider)
        request = Request(self.teacher, self.family, exporter_of(self.plan), workload)
        return latency_table(request, run_dir=self.run_dir).table

    @property
    def label2id(self) -> Mapping[str, int]:
        """Class ids by name, of the checkpoint."""
        config: Any = self.teacher.config
        return dict(config.label2id)

    @property
    def groups(self) -> tuple[PrunableGroup, ...]:
        """Prunable groups of the model as it is now."""
        return self.family.groups(self.model)


def latest(session: Session, figure: str) -> Any:
    """Return a figure of the last step that has it, or None."""
    return next((o.metrics[figure] for o in reversed(session.outcomes) if figure in o.metrics), None)
