"""Contrast with what other models make of the same sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from compressor.errors import InputError
from compressor.plugin import Loss, Task, hookimpl

if TYPE_CHECKING:
    from compressor.plugin import Component, LossRun
    from compressor.run.session import Session

Module = Literal["PrC", "SnC", "FiC"]
SUPERVISED = 0.03
"""Default weight of the supervised term, which counts only where the task has classes."""


def one_class(task: Task) -> bool:
    """Tell whether a row of a task is of one class, where its model has several."""
    several = task.num_labels != 1 and task.problem_type in {None, "single_label_classification"}
    return task.head == "sequence-classification" and several and not task.label_free


class Contrastive(Loss):
    """Every sentence's vector near those that other models give it, and far from other sentences' (Xu et al. 2022).

    CAP's three modules (https://arxiv.org/abs/2112.07198), each a bank of vectors of all training rows: PrC of the
    pre-trained encoder, FiC of the dense fine-tuned model, SnC of snapshots of the model in training (at the start of every
    epoch but the first; under ``cap`` before every cut but the first). Per bank, with positives U of the same row and V of
    the same class, ``unsupervised * mean of -log p over U + supervised * mean of -log p over V``, where p is the softmax over
    the batch's own vectors, their rows in the bank, and ``extra_examples`` others; only the vector itself has a gradient.
    The supervised term is of tasks with classes. Other rows of the batch are negatives, so parts of a batch, unlike with
    other losses, change what is learned.

    Vectors of banks are made without dropout, in float16, one file a model, and stay on disk.
    """

    name: ClassVar[str] = "contrastive"
    needs_teacher: ClassVar[bool] = False
    encoder: ClassVar[bool] = True

    modules: tuple[Module, ...] = Field(
        default=("PrC", "SnC", "FiC"),
        description="Banks to contrast with: PrC, the pre-trained encoder; SnC, snapshots; FiC, the dense model.",
    )
    pretrained: str | None = Field(
        default=None,
        description="Encoder of PrC, a directory or a model of the hub; default: what the run started from, where a step "
        "train made the dense model.",
    )
    pretrained_revision: str | None = Field(default=None, description="Its branch, tag or commit on the hub.")
    vector: Literal["cls", "mean"] = Field(
        default="cls",
        description="Of a sentence: what the encoder's pooler gives (without one, the first token's last state), or the mean of "
        "the last states.",
    )
    temperature: float = Field(default=0.1, gt=0, description="Divides the cosines.")
    unsupervised: float = Field(default=0.3, ge=0, description="Weight of the term whose positives are the same row.")
    supervised: float = Field(
        default=SUPERVISED, ge=0, description="Weight of the term whose positives are the same class."
    )
    norm: Literal["batch", "released"] = Field(
        default="batch",
        description="Mean over the batch, or the released code's division by the batch's number of positives as well, for which the "
        "published weights (supervised 3 and 10) are made.",
    )
    extra_examples: int = Field(
        default=4096,
        ge=0,
        description="Vectors of other rows of a bank among the candidates, drawn anew for every batch.",
    )
    max_snapshots: int = Field(default=8, ge=1, description="Newest snapshots that are kept.")

    @field_validator("modules")
    @classmethod
    def _some(cls, modules: tuple[Module, ...]) -> tuple[Module, ...]:
        if not modules or len(set(modules)) < len(modules):
            message = f"expected one or more of PrC, SnC, FiC, each once; got {list(modules)}"
            raise ValueError(message)
        return modules

    @field_validator("pretrained")
    @classmethod
    def _there(cls, pretrained: str | None) -> str | None:
        path = Path(pretrained or "").expanduser()
        if pretrained and (pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1) and not path.is_dir():
            message = f"no such directory: '{pretrained}'; expected a checkpoint directory or a hub id"
            raise ValueError(message)
        return pretrained

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if not self.unsupervised and not self.supervised:
            message = "expected unsupervised or supervised above 0; both are 0, so nothing would be learned"
            raise ValueError(message)
        if self.pretrained is not None and "PrC" not in self.modules:
            message = f"pretrained is the encoder of PrC, which is not among modules {list(self.modules)}"
            raise ValueError(message)
        if self.pretrained_revision is not None and self.pretrained is None:
            message = "pretrained_revision is of pretrained, which is not given"
            raise ValueError(message)
        task: Any = (info.context or {}).get("task")
        if task is not None and not one_class(task):
            if self.supervised not in {0, SUPERVISED}:
                message = f"supervised contrast needs classes, which task '{task.name}' does not have; leave it out"
                raise ValueError(message)
            if not self.unsupervised:
                message = f"expected unsupervised above 0: task '{task.name}' has no classes for the supervised term"
                raise ValueError(message)
        return self

    def start(self, session: Session) -> LossRun:
        """Start computing it; banks are made when the training's rows are known.

        Raises:
            InputError: the supervised term is all there is, and the model has no classes.
        """
        from compressor_plugins.losses._contrastive import AgainstBanks, has_classes

        if not self.unsupervised and not has_classes(session):
            raise InputError(
                "loss 'contrastive': supervised contrast needs classes, which the model does not have",
                hint="give unsupervised a weight",
            )
        return AgainstBanks(self, session)


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    """Provide the loss ``contrastive``."""
    yield Contrastive
