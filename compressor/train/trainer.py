"""transformers' ``Trainer`` on an ``Objective``: its loop, mixed precision, schedules and trackers; our rows and checkpoints.

Nothing is pickled but the optimizer's, the schedule's and the generators' state, which transformers writes and reads
back with ``weights_only``; its pickled arguments are not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from compressor.model.batches import collate
from compressor.train import checkpoints
from compressor.train.objective import Objective
from compressor.train.rows import Batches, Layout, NumberedRows

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Feed:
    """Rows, which of them are in which batch, and what pads them."""

    rows: NumberedRows
    batches: Batches
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Saved:
    """What is in a checkpoint beside transformers' own files.

    Attributes:
        states: by the name of their file.
        fingerprint: of the training.
    """

    states: Mapping[str, checkpoints.Stateful]
    fingerprint: str


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are learned at a rate of their own.

    Attributes:
        parameters: of the model in training.
        learning_rate: highest; the schedule is that of all.
        weight_decay: of AdamW.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0


class EpochOrder(TrainerCallback):
    """Tells the batches which epoch begins."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Choose the order of the epoch that the next step belongs to."""
        self.batches.epoch = state.global_step // self.batches.layout.steps


class EpochStart(TrainerCallback):
    """Has the losses that remember see the model at the start of every epoch but the first.

    Attributes:
        layout: of the rows.
        snapshot: shows them the model.
    """

    def __init__(self, layout: Layout, snapshot: Callable[[], None]) -> None:
        self.layout, self.snapshot = layout, snapshot

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Take a snapshot; where a resumed training goes on within an epoch, its checkpoint has that epoch's."""
        if state.global_step and not state.global_step % self.layout.steps:
            self.snapshot()


class ObjectiveTrainer(Trainer):
    """Trains the student of an objective.

    Attributes:
        objective: the module in training.
        feed: its rows.
        saved: what its checkpoints hold of ours.
        groups: of parameters with a learning rate of their own.
    """

    groups: Sequence[ParameterGroup] = ()

    def __init__(self, objective: Objective, arguments: TrainingArguments, feed: Feed, saved: Saved) -> None:
        self.objective: Objective = objective
        self.feed: Feed = feed
        self.saved: Saved = saved
        arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - or one process would spread over all GPUs it sees
        super().__init__(objective, arguments, train_dataset=feed.rows, callbacks=[EpochOrder(feed.batches)])
        self.remove_callback(PrinterCallback)  # stdout belongs to --json

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's batches; the order is ours, and drawn by no global generator."""
        return DataLoader(
            self.feed.rows,  # type: ignore[arg-type]  # any sequence serves
            batch_sampler=self.feed.batches,
            collate_fn=partial(collate, tokenizer=self.feed.tokenizer),
            generator=torch.Generator(),
        )

    def create_optimizer(self, *model: nn.Module) -> torch.optim.Optimizer:
        """Return transformers' AdamW, with the parameters of ``groups`` in groups of their own."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*model)
        if fresh and self.groups:
            own = {id(parameter) for group in self.groups for parameter in group.parameters}
            for rest in optimizer.param_groups:
                rest["params"] = [parameter for parameter in rest["params"] if id(parameter) not in own]
            for group in self.groups:
                optimizer.add_param_group(
                    {"params": list(group.parameters), "lr": group.learning_rate, "weight_decay": group.weight_decay}
                )
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - transformers'
        """Write the student's weights, and no pickled arguments."""
        directory = Path(output_dir or str(self.args.output_dir))
        directory.mkdir(parents=True, exist_ok=True)
        checkpoints.save_tensors(self.objective.student.state_dict(), directory / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002 - transformers'
        """Read the student's weights."""
        self.objective.student.load_state_dict(load_file(str(Path(resume_from_checkpoint) / WEIGHTS)))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, ours last; none at the end, where transformers would go on for one step too many."""
        if self.state.global_step >= self.state.max_steps:
            return
        self.reduce_history()
        super()._save_checkpoint(model, trial)
        directory = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        self.accelerator.wait_for_everyone()  # every process writes the state of its generators
        if self.args.should_save:
            checkpoints.save_states(self.saved.states, directory)
            checkpoints.complete(directory, fingerprint=self.saved.fingerprint)
            checkpoints.remove_old(directory.parent)
        self.accelerator.wait_for_everyone()

    def reduce_history(self) -> None:
        """Average over the processes what every term was: each saw its share of the rows."""
        history = self.objective.history
        if history and self.args.world_size > 1:
            self.objective.history = list(self.accelerator.reduce(torch.stack(history), reduction="mean"))
