"""Where single-shot meta-pruning gets its scorer from. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from compressor.plugin import Choice, Task
from compressor_plugins.paths import is_file


def _is_scorer(path: Path) -> Path:
    return is_file(path, (".safetensors", ".bin", ".pt", ".pth"))


ScorerFile = Annotated[Path, AfterValidator(_is_scorer)]


class ScorerTraining(BaseModel):
    """How a scorer is trained: to choose heads without which the relations of sentences in a batch stay the same.

    As published: ``lessons: 0, optimizer: sgd, learning_rate: 0.02, batch_size: 60, scored: 60,
    draws: 1, accumulation: 8, decay: false, steps: 64000``, on
    seven tasks of GLUE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tasks: tuple[Choice[Task], ...] = Field(
        default=(), description="Tasks whose train texts it sees, without their labels; default: the recipe's own."
    )
    lessons: int = Field(
        default=1500,
        ge=0,
        description="Batches from which it first learns the heads that one mask for all texts keeps; published: 0.",
    )
    swaps: int = Field(default=60, ge=0, description="Swaps of two heads that are tried to find that mask.")
    steps: int = Field(default=0, ge=0, description="Batches that it sees after that, by the published objective.")
    batch_size: int = Field(default=16, ge=4, multiple_of=2, description="Sentences whose relations are kept.")
    scored: int = Field(default=2, ge=1, description="Of these, how many have their attention maps scored.")
    draws: int = Field(default=2, ge=1, description="Masks that are drawn and tried for a batch; published: 1.")
    accumulation: int = Field(default=1, ge=1, description="Batches per optimizer step.")
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="Adam, or (as published) plain SGD.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Of the optimizer, in the first step.")
    decay: bool = Field(
        default=True, description="Let the learning rate fall linearly to 0; published: the same in every step."
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Batches between checkpoints of a running training.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.lessons + self.steps:
            message = "expected lessons or steps above 0"
            raise ValueError(message)
        if self.scored > self.batch_size:
            message = f"expected scored of at most batch_size, {self.batch_size}; got {self.scored}"
            raise ValueError(message)
        return self


class TrainedScorer(BaseModel):
    """A scorer that is trained first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: ScorerTraining = Field(description="How it is trained.")


def _form(value: Any) -> str | None:
    if isinstance(value, Mapping | TrainedScorer):
        return "a training"
    return "a file" if isinstance(value, str | Path) else None


ScorerSource = Annotated[
    Annotated[ScorerFile, Tag("a file")] | Annotated[TrainedScorer, Tag("a training")], Discriminator(_form)
]
