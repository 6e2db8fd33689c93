"""CAP: prune step by step while contrast keeps what the pre-trained, the fine-tuned and the half-pruned models knew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, Training, hookimpl
from compressor_plugins.losses.contrastive import Contrastive
from compressor_plugins.losses.distillation import Distillation
from compressor_plugins.losses.task import TaskLoss
from compressor_plugins.methods._cap_options import CUTS, REFRESH, CutOptions, ScoreOptions

if TYPE_CHECKING:
    from torch import nn

    from compressor.run.session import Session

CUTTING = frozenset(CutOptions.model_fields)
SCORING = frozenset(ScoreOptions.model_fields)
FOREIGN: Mapping[str, frozenset[str]] = {
    "first-order": SCORING,
    "magnitude": CUTTING | {"score_learning_rate", "final_threshold", "final_lambda"},
    "movement": CUTTING | {"final_threshold", "final_lambda"},
    "soft-movement": CUTTING | {"pruning_scope", "refresh"},
}
"""The options that a back end does not have."""


class Cap(CutOptions, ScoreOptions, PruningMethod):
    """Prune in steps, and train in between with distillation and contrast (Xu et al., AAAI 2022, https://arxiv.org/abs/2112.07198).

    Four back ends. ``first-order`` removes heads and FFN neurons in cuts: absolute gradients of their gates (Michel et al. 2019)
    choose them, the smaller model is trained, and so on; they are gone for good, where the reference masks them. The others
    zero single weights of the encoder's layers in one training, along a cubic schedule: ``magnitude``; ``movement``, by learned
    scores with a straight-through gradient (Sanh et al. 2020, https://arxiv.org/abs/2005.07683); ``soft-movement``, where a penalty
    on the scores decides how many stay. Weights that are masked get no gradient, and may come back.

    Where ``train.losses`` are left out they are CAP's: 0.1 of the task's, 0.9 of distillation (temperature 1 for first-order, 2 for
    the others), and contrast with all three banks, whose weights are those of the mean over the batch.

    As published: ``start: pre-trained`` and contrast with ``norm: released``; first-order with percentages 10 to 90 and two epochs a
    cut. Always different: a pruned head cannot take the place of the one that a layer keeps, snapshots are encoded without
    dropout, small data sets do not fail, evaluation computes no contrast, and a killed run goes on.
    """

    name: ClassVar[str] = "cap"

    backend: Literal["first-order", "magnitude", "movement", "soft-movement"] = Field(
        default="first-order",
        description="What goes, and by which score: heads and neurons by gradients; or single weights.",
    )
    target: Target | None = Field(
        default=None,
        description="Of first-order: {macs: 0.4} or {params: 0.4}, instead of percentages; of magnitude and movement: {sparsity: 0.9}; "
        "of soft-movement none.",
    )
    start: Literal["dense", "pre-trained"] = Field(
        default="dense",
        description="Begin with the dense fine-tuned model, or, as published, with the pre-trained one that the run started from (and a new "
        "head, if it had none), while the fine-tuned model of a step train teaches.",
    )
    train: Training = Field(
        default_factory=Training.defaults,
        validate_default=True,
        description="The training, of first-order after every cut: the options of the step train.",
    )

    @property
    def joint(self) -> bool:
        """Whether all processes take part: they train together."""
        return True

    @property
    def structured(self) -> bool:
        """Whether heads and neurons go, not single weights."""
        return self.backend == "first-order"

    @property
    def zeroes(self) -> bool:
        """Whether weights stay as zeros."""
        return not self.structured

    @model_validator(mode="before")
    @classmethod
    def _caps_losses(cls, data: Any, info: ValidationInfo) -> Any:
        """Fill in the losses, so that the digest of a plan knows them."""
        train = data.get("train", {}) if isinstance(data, Mapping) else None
        if not isinstance(train, Mapping) or "losses" in train:
            return data
        temperature = 1.0 if data.get("backend", "first-order") == "first-order" else 2.0
        labels = () if getattr((info.context or {}).get("task"), "label_free", False) else (TaskLoss(weight=0.1),)
        losses = (*labels, Distillation(weight=0.9, temperature=temperature), Contrastive())
        return {**data, "train": {**train, "losses": losses}}

    @model_validator(mode="after")
    def _of_the_back_end(self) -> Self:
        given = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.get_default()}
        if foreign := FOREIGN[self.backend] & given:
            message = f"{', '.join(sorted(foreign))}: not an option of back end {self.backend}"
            raise ValueError(message)
        allowed = {"first-order": ("macs", "params"), "soft-movement": ()}.get(self.backend, ("sparsity",))
        if self.target is not None and self.target.amount not in allowed:
            wanted = " or ".join(f"target.{amount}" for amount in allowed) or "no target, but final_lambda"
            message = f"back end {self.backend} takes {wanted}; got target.{self.target.amount}"
            raise ValueError(message)
        if message := self._unsaid():
            raise ValueError(message)
        return self

    def _unsaid(self) -> str:
        """Return what is wrong with how the amount is given, or nothing."""
        if self.structured:
            if (self.target is None) == (self.percentages is None):
                return f"expected a target or percentages; got {'neither' if self.target is None else 'both'}"
            return (
                "cuts is of a target; percentages say it themselves" if self.percentages and self.cuts != CUTS else ""
            )
        if self.backend == "soft-movement":
            return "expected final_lambda, which decides the sparsity" if self.final_lambda is None else ""
        if self.target is None:
            return f"back end {self.backend} needs target.sparsity"
        return "refresh is of pruning_scope global" if self.refresh != REFRESH and self.pruning_scope == "local" else ""

    def check(self, model: nn.Module) -> None:
        """Check that there are layers to prune, and that percentages leave the heads that every layer keeps."""
        from compressor_plugins.methods._cap import check

        check(self, model)

    def prune(self, session: Session) -> Pruned:
        """Return masks of units or of weights, and the trained weights."""
        from compressor_plugins.methods._cap import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Cap
