"""The task's own loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin import Loss, hookimpl

if TYPE_CHECKING:
    from compressor.plugin import Component, LossRun
    from compressor.run.session import Session


class TaskLoss(Loss):
    """The task's own loss against the labels: cross entropy, of words or many labels their mean, squared error, start and end."""

    name: ClassVar[str] = "task"
    needs_labels: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False

    def start(self, session: Session) -> LossRun:
        """Start computing it; ``Task.sample_losses`` says what it is."""
        from compressor_plugins.losses._outputs import AgainstLabels

        return AgainstLabels(session.task)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the loss ``task``."""
    yield TaskLoss
