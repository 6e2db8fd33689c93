"""Agreement with the dense model's output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import Loss, hookimpl

if TYPE_CHECKING:
    from compressor.plugin import Component, LossRun
    from compressor.run.session import Session


class Distillation(Loss):
    """The dense model's output as the target (Hinton et al. 2015, https://arxiv.org/abs/1503.02531); needs no labels.

    ``T^2 * KL(softmax(dense / T) || softmax(student / T))`` over the classes; the mean over a row's words of tagged ones,
    over the classes' own probabilities of multi-label ones, over the positions of an answer's start and end; the squared distance of regressions and of embeddings, which is twice one minus the
    cosine where they are normalised.
    """

    name: ClassVar[str] = "distillation"

    temperature: float = Field(default=2.0, gt=0, description="Softens both sides.")

    def start(self, session: Session) -> LossRun:
        """Start computing it; ``Task.divergences`` says what it is."""
        from compressor_plugins.losses._outputs import AgainstOutputs

        return AgainstOutputs(session.task, self.temperature)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the loss ``distillation``."""
    yield Distillation
