"""Agreement with the dense model's hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from compressor.plugin import Loss, hookimpl

if TYPE_CHECKING:
    from compressor.plugin import Component, LossRun
    from compressor.run.session import Session


class Hidden(Loss):
    """Mean squared difference from the dense model's hidden states, per layer and real token; needs no labels.

    The mean over a sample's tokens without padding and over the features, then over samples and layers.
    """

    name: ClassVar[str] = "hidden"
    hidden: ClassVar[bool] = True

    layers: Mapping[int, int] | None = Field(
        default=None,
        description="Layer of the student: layer of the dense model; 0 = the embeddings. Default: every layer to the one "
        "that it was.",
    )

    @field_validator("layers")
    @classmethod
    def _some(cls, layers: Mapping[int, int] | None) -> Mapping[int, int] | None:
        if layers is not None and not layers:
            message = "expected at least one pair of layers; leave layers out to compare all"
            raise ValueError(message)
        return layers

    def start(self, session: Session) -> LossRun:
        """Start computing it.

        Raises:
            InputError: a model has no such layer.
        """
        from compressor_plugins.losses._states import AgainstStates, layer_pairs

        return AgainstStates(layer_pairs(session, self.layers))


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the loss ``hidden``."""
    yield Hidden
