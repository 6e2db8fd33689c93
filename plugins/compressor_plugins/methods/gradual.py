"""Prune while training: more and more weights go, and the ones that stay learn to do without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from compressor.plugin import Component, Pruned, PruningMethod, Training, hookimpl
from compressor_plugins.methods._gradual_options import PrunerBlock, PrunerOptions
from compressor_plugins.patterns.block import Block

if TYPE_CHECKING:
    from torch import nn

    from compressor.run.session import Session


class Gradual(PrunerOptions, PruningMethod):
    """Score weights at every training step, and every so many steps zero the lowest in a pattern, more each time.

    The options are those of neural-compressor's pruner (2.x), and so is the order within a step: at an event scores make
    masks; then forward and backward pass, the criterion sees the gradients, the optimizer moves, masks zero what it revived.
    Unlike there, counts are exact, ends of schedules are met, elements keep scores of their own, and a killed training goes
    on with the same masks. What whole rows and columns leave empty is taken out of the model afterwards.

    ``pruning_configs`` makes several pruners, each with its own layers; an option that such a block leaves open is the
    method's own.
    """

    name: ClassVar[str] = "gradual"

    pruning_configs: tuple[PrunerBlock, ...] = Field(
        default=(), description="Pruners with layers of their own, each a mapping of the options above."
    )
    train: Training = Field(
        default_factory=Training.defaults,
        validate_default=True,
        description="How the model is trained meanwhile: the options of the step train.",
    )

    @property
    def joint(self) -> bool:
        """Whether all processes take part: they train together."""
        return True

    @model_validator(mode="before")
    @classmethod
    def _with_pattern(cls, data: Any) -> Any:
        """Say the pattern that is meant where nothing is said, so that the digest and the remarks of a plan know it."""
        if not isinstance(data, Mapping):
            return data
        blocks = data.get("pruning_configs")
        everywhere = blocks and all(isinstance(block, Mapping) and "pattern" in block for block in blocks)
        return data if everywhere else {"pattern": Block(rows=4), **data}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train.precision == "fp16" and not self.train.max_grad_norm:
            message = (
                "expected train.max_grad_norm above 0 with fp16: only then criteria see gradients without their scale"
            )
            raise ValueError(message)
        for number, options in enumerate(self.pruners):
            where = f"pruning_configs.{number}: " if self.pruning_configs else ""
            epochs = None if self.train.max_steps else self.train.epochs
            if not options.pattern_lock and (message := options.contradiction(epochs)):
                raise ValueError(where + message)
        return self

    @property
    def pruners(self) -> tuple[PrunerOptions, ...]:
        """The pruners: the blocks, each filled up with the method's own options; or the one that these make."""
        if not self.pruning_configs:
            return (self,)
        own = {name: getattr(self, name) for name in PrunerOptions.model_fields}
        return tuple(
            block.model_copy(update={name: value for name, value in own.items() if name not in block.model_fields_set})
            for block in self.pruning_configs
        )

    def check(self, model: nn.Module) -> None:
        """Check that each pruner has layers of its own that can take its pattern."""
        from compressor_plugins.methods._gradual_setup import parts_of

        parts_of(self, model)

    def prune(self, session: Session) -> Pruned:
        """Return masks of weights, and the trained weights."""
        from compressor_plugins.methods._gradual import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Gradual
