"""How a model is trained: the options of the step ``train``, and of methods that train while they prune.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from compressor.plugin.choice import Choice
from compressor.plugin.component import Component
from compressor.plugin.components import Loss

Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]
LABELLED, LABEL_FREE = "task", "distillation"
"""Names of the losses that are used where a recipe names none, for tasks with and without labels."""

Beta = Annotated[float, Field(ge=0, lt=1)]
_NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "default": []}


def _tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Training(Component):
    """Train the model on the task's train split with AdamW: fine-tune a dense model, or recover a pruned one.

    What is masked stays zero. A killed training goes on from its newest complete checkpoint. Without ``losses`` the
    task's own loss is used, or ``distillation`` where the task has no labels.
    """

    kind: ClassVar[str] = "training"
    name: ClassVar[str] = "train"

    epochs: float = Field(default=3.0, gt=0, description="Passes over the train rows.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps, instead of epochs.")
    learning_rate: float = Field(default=3e-5, gt=0, description="Highest learning rate.")
    batch_size: int = Field(
        default=32, ge=1, description="Rows per optimizer step, over all processes and all parts of a batch."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, description="Parts that a batch is computed in, one after another, to save memory."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Of matrices; biases and LayerNorms have none.")
    warmup: float | None = Field(
        default=None,
        ge=0,
        description="Steps of rising learning rate; below 1, a share of all. Default: 0.1, or 0 where it is constant.",
    )
    schedule: Schedule = Field(default="linear", description="Of the learning rate, by transformers' names.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Of the forward and backward pass; weights are float32 always. fp16 needs CUDA."
    )
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="AdamW's decay rates.")
    max_grad_norm: float = Field(default=1.0, ge=0, description="Gradients are clipped to this norm; 0 = never.")
    dropout: bool = Field(default=True, description="With the checkpoint's dropout, or without any.")
    losses: tuple[Choice[Loss], ...] = Field(
        default=(), description="Terms of the loss, which add up, each times its weight."
    )
    samples: int | None = Field(default=None, ge=1, description="Train rows to draw, by seed; default: all.")
    fraction: float | None = Field(default=None, gt=0, le=1, description="Share of the train rows to draw, by seed.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between checkpoints of a running training.")
    report_to: Annotated[tuple[str, ...], BeforeValidator(_tuple), WithJsonSchema(_NAMES)] = Field(
        default=(), description="Trackers by transformers' names: tensorboard, wandb, mlflow, ..."
    )

    @staticmethod
    def defaults() -> Any:
        """Return what a method's option ``train`` validates as its default, where plans say which losses suit the task.

        ``train: Training = Field(default_factory=Training.defaults, validate_default=True, ...)``
        """
        return {}

    @model_validator(mode="before")
    @classmethod
    def _default_losses(cls, data: Any, info: ValidationInfo) -> Any:
        """Fill in the losses, which the digest of a plan holds: they depend on the task."""
        if not isinstance(data, Mapping) or "losses" in data:
            return data
        return {**data, "losses": [LABEL_FREE if _label_free(info) else LABELLED]}

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        given = self.model_fields_set
        for one, other in (("epochs", "max_steps"), ("samples", "fraction")):
            if {one, other} <= given and None not in (getattr(self, one), getattr(self, other)):
                message = f"expected {one} or {other}; got both"
                raise ValueError(message)
        if self.batch_size % self.gradient_accumulation:
            message = (
                f"expected a batch_size that divides into gradient_accumulation parts; "
                f"got {self.batch_size} rows in {self.gradient_accumulation} parts"
            )
            raise ValueError(message)
        if self.schedule == "constant" and self.warmup:
            message = "expected schedule constant_with_warmup where warmup is given; constant has none"
            raise ValueError(message)
        if not self.losses:  # a min_length would be complained of where a loss is misspelt
            message = "expected at least one loss; got none"
            raise ValueError(message)
        names = [loss.name for loss in self.losses if loss.needs_labels]
        if names and _label_free(info):
            message = f"expected losses without labels, such as {LABEL_FREE}: the task has none; got {', '.join(names)}"
            raise ValueError(message)
        return self

    @model_serializer(mode="wrap")
    def _one_length(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``epochs`` out where ``max_steps`` stands: what is dumped, also inside another component, validates back."""
        dumped: dict[str, Any] = dump(self)
        return {name: value for name, value in dumped.items() if name != "epochs" or self.max_steps is None}


def _label_free(info: ValidationInfo) -> bool:
    """Tell whether the recipe's task, which plans put in the validation context, has no labels."""
    return bool(getattr((info.context or {}).get("task"), "label_free", False))
