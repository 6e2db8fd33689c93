"""The contract of losses: terms of what a training minimises. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin.component import Component

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.run.session import Session
    from compressor.train.rows import NumberedRows


class LossRun(abc.ABC):
    """A training loss at work."""

    @abc.abstractmethod
    def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of one batch, a scalar: the mean over its samples of what each sample alone would have.

        Such means do not change when a batch is cut into parts, over time or over processes.

        Args:
            student: transformers' output of the model in training, float32; ``hidden_states`` where ``Loss.hidden``,
                ``last_hidden_state`` and, of an encoder with a pooler, ``pooler_output`` where ``Loss.encoder``.
            teacher: the same of the dense model, in eval mode and without gradients.
            batch: ``input_ids`` and friends (B, T), ``labels``, ``window``, and ``index`` (B,), every row's number in the
                train split, the same in all epochs.
        """

    def prepare(self, student: nn.Module, rows: NumberedRows) -> None:  # noqa: B027 - few losses remember
        """Look at the rows that will be trained on, once, before the first step.

        Args:
            student: the model in training as it is now, in eval mode.
            rows: tokenised, each with its ``index``.
        """

    def snapshot(self, student: nn.Module) -> None:  # noqa: B027 - few losses remember
        """Look at the model in training as it is now, in eval mode.

        Called at the start of every epoch but the first; of a method that prunes in cuts, before every cut but the first.
        """

    def frozen(self, model: nn.Module) -> frozenset[str]:
        """Return names of the model's parameters that this loss leaves as they are: no gradient, no weight decay."""
        return frozenset()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what must be saved to resume (banks, snapshots)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - most losses have nothing to restore
        """Continue from a saved state."""


class Loss(Component):
    """One term of the training loss; terms add up."""

    kind: ClassVar[str] = "loss"
    needs_labels: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    hidden: ClassVar[bool] = False
    encoder: ClassVar[bool] = False

    weight: float = Field(default=1.0, gt=0, description="What the term is multiplied by.")

    @abc.abstractmethod
    def start(self, session: Session) -> LossRun:
        """Start computing this loss for the session's teacher and student."""
