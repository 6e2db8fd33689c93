"""The dense model's head on the student: only what it reads is learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin import Loss, hookimpl

if TYPE_CHECKING:
    from compressor.plugin import Component, LossRun
    from compressor.run.session import Session


class ReusedHead(Loss):
    """Mean squared difference from the dense model's last hidden states, with its head kept (Chen et al. 2022).

    As in SimKD (https://arxiv.org/abs/2203.14001), without a projection: pooler and classifier stay as they are, bit by
    bit, whatever other losses there are. Padding does not count. Needs no labels.
    """

    name: ClassVar[str] = "reused-head"
    hidden: ClassVar[bool] = True

    def start(self, session: Session) -> LossRun:  # noqa: ARG002 - the contract's
        """Start computing it."""
        from compressor_plugins.losses._states import WithReusedHead

        return WithReusedHead([(-1, -1)])


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the loss ``reused-head``."""
    yield ReusedHead
