from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from pydantic import Field

from compressor.model import Masks
from compressor.plugin import Pruned, PruningMethod, Registry, Target, Training


class Tuning(PruningMethod):
    """Says how it would train."""

    name: ClassVar[str] = "tuning"
    target: Target
    train: Training = Field(default_factory=Training.defaults, validate_default=True)

    def prune(self, session: Any) -> Pruned:  # noqa: ARG002 - the contract's
        return Pruned(Masks({}), metrics={"asked": self.target.sparsity, "losses": [x.name for x in self.train.losses]})


def test_members_of_a_sweep_train_by_the_losses_that_suit_the_task():
    context = {"registry": Registry.load(), "task": SimpleNamespace(label_free=True)}
    method = Tuning.model_validate({"target": {"sparsity": 0.1}}, context=context)
    found = method.prune_all(SimpleNamespace(), [Target(sparsity=0.3), Target(sparsity=0.5)])  # type: ignore[arg-type]
    assert [one.metrics for one in found] == [{"asked": s, "losses": ["distillation"]} for s in (0.3, 0.5)]
