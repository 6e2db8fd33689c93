"""One training, from a session to a trained model: set up first, so that methods can hook into it, then run."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from compressor.model.batches import collate
from compressor.model.checkpoint import fingerprint
from compressor.model.elements import apply_masks
from compressor.plugin.training import Training
from compressor.train import checkpoints
from compressor.train.enforce import Enforced, Enforcing
from compressor.train.objective import Objective, Term, Terms
from compressor.train.report import POINTS, Progress, diverged, loss_figures
from compressor.train.rows import Batches, drawn, laid_out
from compressor.train.trainer import EpochStart, Feed, ObjectiveTrainer, ParameterGroup, Saved

if TYPE_CHECKING:
    from compressor.run.session import Session

CHECKPOINTS = "checkpoints"
"""Where a step below its stage directory keeps what it resumes from itself, until it is done."""
WARMUP = 0.1
"""Share of the steps in which the learning rate rises, where a recipe says nothing."""


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        model: trained, in eval mode, without gradients.
        figures: plain data for the report: steps, rows, the loss at both ends and on its way.
    """

    model: nn.Module
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Extension:
    """What a method adds to a training.

    Attributes:
        callbacks: of transformers; ``on_step_begin`` comes before the forward pass, ``on_pre_optimizer_step`` when all
            gradients are there (of ``run.student``'s parameters, clipped), ``on_optimizer_step`` after the weights moved.
            Masks are enforced after these.
        states: saved in every checkpoint as ``<name>.safetensors``, and restored from it; the masks already are.
        key: what the result depends on beside the training's own options: a checkpoint of another key is not used.
        groups: parameters of ``run.student`` with a learning rate of their own.
        penalty: on parameters of ``run.student``, a scalar that every loss gets added; figures of the loss are without it.
        snapshots: whether the losses see the model at the start of every epoch but the first; else the method calls
            ``run.snapshot()`` when it is time.
    """

    callbacks: Sequence[TrainerCallback] = ()
    states: Mapping[str, checkpoints.Stateful] = field(default_factory=dict)
    key: str = ""
    groups: Sequence[ParameterGroup] = ()
    penalty: Callable[[], Tensor] | None = None
    snapshots: bool = True


class TrainingRun:
    """A training that is set up: the model that will be trained is there, and can be looked at and masked.

    Attributes:
        session: whose model it starts from; it stays untouched.
        options: of the training.
        student: the model that is trained, a copy.
        enforced: its element-wise masks, at first the session's; ``enforced.hold(masks)`` changes them.
        rows: that are trained on, each with its number in the train split.
        objective: the student with its loss: ``objective(**batch)["loss"]``.
        layout: ``layout.steps`` are the optimizer steps of an epoch.
        steps: optimizer steps in all.
    """

    def __init__(self, session: Session, options: Training) -> None:
        """Set up; raises InputError where the rows are too few, or do not divide among the processes."""
        gc.collect()  # an earlier training's optimizer and schedule refer to each other: hundreds of megabytes
        self.session = session
        self.options = options
        self.student = copy.deepcopy(session.model).requires_grad_(True)
        terms = [Term(loss, loss.start(session)) for loss in options.losses]
        frozen = frozenset().union(*(term.run.frozen(self.student) for term in terms))
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.enforced = Enforced(self.student, session.weight_masks)
        self.rows = drawn(session.train_rows, options, seed=session.seed)
        self.layout = laid_out(len(self.rows), options, seed=session.seed)
        self.steps = options.max_steps or math.ceil(round(options.epochs * self.layout.steps, 6))
        self.objective = Objective(self.student, Terms(terms, session.teacher, dropout=options.dropout))
        with self._evaluated() as student:
            for term in terms:
                term.run.prepare(student, self.rows)
        for parameter in self.unreached():
            parameter.requires_grad_(False)

    @property
    def warmup_steps(self) -> int:
        """Steps of rising learning rate."""
        return warmup_steps(self.options, self.steps)

    @contextmanager
    def _evaluated(self) -> Iterator[nn.Module]:
        """Have the student in eval mode for a while."""
        training = self.student.training
        try:
            yield self.student.eval()
        finally:
            self.student.train(training)

    def snapshot(self) -> None:
        """Let the losses that remember see the student as it is now."""
        with self._evaluated() as student:
            for term in self.objective.terms.terms:
                term.run.snapshot(student)

    def unreached(self) -> list[nn.Parameter]:
        """Return parameters that no term of the loss depends on, such as the pooler of an encoder without a head."""
        before = self.objective.state_dict_of_losses()
        batch = collate([self.rows[0], self.rows[-1]], self.session.tokenizer)
        self.objective.eval()
        self.objective(**{name: tensor.to(self.session.device) for name, tensor in batch.items()})["loss"].backward()
        self.objective.load_state_dict_of_losses(before)
        found = [p for p in self.student.parameters() if p.requires_grad and p.grad is None]
        self.student.zero_grad()
        return found

    def fit(self, extension: Extension | None = None) -> Trained:
        """Train, from the newest complete checkpoint of the same training if there is one.

        Args:
            extension: what a pruning method adds.

        Raises:
            InputError: the loss is not a number any more.
        """
        more = extension or Extension()
        directory = self.session.stage / CHECKPOINTS
        saved = Saved(
            {**more.states, "masks": self.enforced, "losses": _Losses(self.objective)}, self.fingerprint(more)
        )
        found = checkpoints.newest(directory, fingerprint=saved.fingerprint)
        feed = Feed(self.rows, Batches(self.layout), self.session.tokenizer)
        trainer = ObjectiveTrainer(self.objective, self.arguments(directory), feed, saved)
        trainer.groups, self.objective.penalty = more.groups, more.penalty
        progress = Progress(self.options.name)
        epochs = [EpochStart(self.layout, self.snapshot)] if more.snapshots else []
        for callback in (*epochs, *more.callbacks, Enforcing(self.enforced), progress):
            trainer.add_callback(callback)
        if trainer.args.should_save and directory.is_dir():
            checkpoints.remove_unusable(directory, fingerprint=saved.fingerprint)
        if found is not None:
            checkpoints.load_states(saved.states, found)
        try:
            trainer.train(resume_from_checkpoint=None if found is None else str(found))
        finally:
            progress.close()
        trainer.reduce_history()
        return self._trained(found)

    def _trained(self, found: Path | None) -> Trained:
        terms = self.objective.terms.terms
        if not all(parameter.isfinite().all() for parameter in self.student.parameters()):
            raise diverged(self.steps)
        apply_masks(self.student, self.enforced.masks)  # half of the zeros are -0.0, which do not compress
        figures = {
            "steps": self.steps,
            "epochs": round(self.steps / self.layout.steps, 4),
            "rows": len(self.rows),
            "samples": self.steps * self.layout.batch_size,
            "processes": self.layout.processes,
            **loss_figures(self.objective.history, terms, parts=self.layout.parts),
        }
        if found is not None:
            figures["resumed_from_step"] = int(found.name.rpartition("-")[2])
        return Trained(self.student.eval().requires_grad_(False), figures)

    def fingerprint(self, extension: Extension) -> str:
        """Return the sha256 of everything that the result depends on: checkpoints of another are not used."""
        masks = {name: int(mask.sum()) for name, mask in self.session.weight_masks.keep.items()}
        parts = [
            self.options.options(),
            extension.key,
            fingerprint(self.session.model),
            fingerprint(self.session.teacher),
            masks,
            [len(self.rows), self.session.train_digest, self.session.seed, self.layout.processes],
            [self.session.device.type, *(version(name) for name in ("torch", "transformers", "accelerate"))],
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def arguments(self, directory: Path) -> TrainingArguments:
        """Return transformers' arguments; checkpoints go below ``directory``."""
        options = self.options
        return TrainingArguments(
            output_dir=str(directory),
            max_steps=self.steps,
            per_device_train_batch_size=self.layout.share,
            gradient_accumulation_steps=self.layout.parts,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            adam_beta1=options.betas[0],
            adam_beta2=options.betas[1],
            max_grad_norm=options.max_grad_norm,
            warmup_steps=self.warmup_steps,
            lr_scheduler_type=options.schedule,
            bf16=options.precision == "bf16",
            fp16=options.precision == "fp16",
            use_cpu=self.session.device.type == "cpu",
            ddp_find_unused_parameters=False,
            ddp_backend="gloo" if self.layout.processes > 1 and self.session.device.type == "cpu" else None,
            seed=self.session.seed,
            save_strategy="steps",
            save_steps=options.checkpoint_every,
            logging_strategy="steps",
            logging_steps=max(1, self.steps // POINTS),
            logging_nan_inf_filter=False,  # or a diverged training looks well, and goes on to its end
            report_to=list(options.report_to) or "none",
            label_names=[],
            remove_unused_columns=False,
            disable_tqdm=True,
        )


class _Losses:
    """The losses' own state and history, as a checkpoint holds them."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def state_dict(self) -> dict[str, Tensor]:
        return self.objective.state_dict_of_losses()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.objective.load_state_dict_of_losses(state)


def warmup_steps(options: Training, steps: int) -> int:
    """Return the steps of rising learning rate."""
    default = 0.0 if options.schedule == "constant" else WARMUP
    asked = default if options.warmup is None else options.warmup
    return math.ceil(asked * steps) if asked < 1 else min(int(asked), steps)
