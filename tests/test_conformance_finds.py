"""The conformance kit finds what it is for: components that are wrong in one way each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, Field
from torch import Tensor
from transformers import TrainerCallback

from compressor.model import Blocks, Masks
from compressor.plugin import (
    Component,
    Criterion,
    CriterionRun,
    Loss,
    LossRun,
    Pruned,
    PruningMethod,
    Registry,
    RunningScores,
    SparsityPattern,
    Target,
    Training,
    Trimmed,
)
from compressor.run.session import Session
from compressor.testing import (
    TinyLabels,
    TinyTexts,
    assert_criterion_conforms,
    assert_declaration_conforms,
    assert_exporter_conforms,
    assert_loss_conforms,
    assert_method_conforms,
    assert_pattern_conforms,
    assert_task_conforms,
)
from compressor.testing.declarations import heavy_imports
from compressor.train import Extension, TrainingRun
from tests.lookup import Lookup


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look away from the imports of this module, which are those of a test."""
    monkeypatch.setattr("compressor.testing.declarations.heavy_imports", lambda _: ())


def first_units(session: Session, *, kept: float = 0.5) -> dict[str, Tensor]:
    return {group.name: torch.arange(group.units) < kept * group.units for group in session.groups}


class Halves(PruningMethod):
    """Keep the first half of the units, whatever is asked."""

    name: ClassVar[str] = "halves"
    act: ClassVar[Callable[[Session], Any]] = staticmethod(lambda _: None)
    changed: ClassVar[Callable[[Pruned, Session], Pruned]] = staticmethod(lambda pruned, _: pruned)

    target: Target = Field(default=Target(macs=0.5), description="What is asked.")

    def prune(self, session: Session) -> Pruned:
        type(self).act(session)
        return type(self).changed(Pruned(Masks(first_units(session))), session)


def halves(**members: Any) -> Halves:
    """Return a method with another behaviour, given as class members."""
    given = {name: staticmethod(member) for name, member in members.items()}
    return type("Halved", (Halves,), {"__doc__": "Halves.", "__module__": __name__, **given})()


def reshaped(pruned: Pruned, session: Session) -> Pruned:
    name = session.groups[0].name
    return Pruned(Masks({**pruned.masks.keep, name: torch.ones(2, dtype=torch.bool)}))


def misnamed(pruned: Pruned, _: Session) -> Pruned:
    return Pruned(Masks({**pruned.masks.keep, "nowhere": torch.ones(2, dtype=torch.bool)}))


def shuffled(pruned: Pruned, _: Session) -> Pruned:
    return Pruned(
        Masks({name: mask[torch.randperm(len(mask), generator=DRAWS)] for name, mask in pruned.masks.keep.items()})
    )


def numbered(pruned: Pruned, _: Session) -> Pruned:
    return Pruned(pruned.masks, metrics={"score": float("nan")})


DRAWS = torch.Generator().manual_seed(0)


def test_a_method_that_keeps_its_contract_passes():
    assert_method_conforms(halves())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"act": lambda s: s.model.register_forward_hook(lambda *_: None)}, "left hooks on the model itself"),
        ({"act": lambda s: s.model.train()}, "changed training or eval mode"),
        ({"act": lambda s: s.model.classifier.weight.mul_(2)}, "changed the weights classifier.weight"),
        ({"act": lambda s: s.model.requires_grad_(True)}, "changed requires_grad"),
        ({"act": lambda s: setattr(s.model.classifier.weight, "grad", torch.ones(2, 32))}, "left gradients on"),
        ({"changed": lambda pruned, _: pruned.masks}, "prune returned Masks"),
        ({"changed": reshaped}, "expected shape"),
        ({"changed": misnamed}, "no such group or parameter"),
        ({"changed": shuffled}, "the same seed gave other masks"),
        ({"changed": numbered}, "Out of range float values"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_method_that_breaks_its_contract_is_found(members: dict[str, Any], message: str):
    with pytest.raises((AssertionError, ValueError), match=message):
        assert_method_conforms(halves(**members))


class Counted(TrainerCallback):
    """Counts the steps of a training."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])


class Trained(PruningMethod):
    """Keep as many units of every group as steps were counted."""

    name: ClassVar[str] = "trained"
    remembers: ClassVar[bool] = True

    train: Training = Field(
        default_factory=lambda: Training.model_validate(
            {"max_steps": 3, "batch_size": 8, "losses": ["task"]}, context={"registry": Registry.load()}
        ),
        description="How.",
    )

    def prune(self, session: Session) -> Pruned:
        counted = Counted()
        states = {"counted": counted} if self.remembers else {}
        TrainingRun(session, self.train).fit(Extension(callbacks=[counted], states=states))
        return Pruned(Masks({group.name: torch.arange(group.units) < counted.steps for group in session.groups}))


class Absent(Trained):
    """Forgets what it counted."""

    remembers: ClassVar[bool] = False


def test_a_method_that_forgets_when_its_training_is_resumed_is_found():
    assert_method_conforms(Trained())
    with pytest.raises(AssertionError, match="a training that was interrupted and resumed gave other masks"):
        assert_method_conforms(Absent())


def trimmed_at_random(pruned: Pruned, _: Session) -> Pruned:
    return replace(pruned, trimmed=Trimmed(tuple(torch.randperm(9, generator=DRAWS).tolist()), {}))


def trimmed_unsaid(pruned: Pruned, _: Session) -> Pruned:
    return replace(pruned, trimmed=Trimmed((0, 1, 2), {}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [(trimmed_at_random, "the same seed trimmed otherwise"), (trimmed_unsaid, "expected True of a method that trims")],
)
def test_a_method_that_trims_against_its_contract_is_found(changed: Any, message: str):
    with pytest.raises(AssertionError, match=message):
        assert_method_conforms(halves(changed=changed))


def test_a_target_of_tokens_that_is_missed_is_found():
    with pytest.raises(AssertionError, match=r"expected at most 0\.5 of vocabulary kept; got 1"):
        assert_method_conforms(Halves(target=Target(vocabulary=0.5)))


def test_a_target_that_is_missed_is_found():
    with pytest.raises(AssertionError, match=r"expected at most 0\.3 of macs kept; got 0\.5"):
        assert_method_conforms(Halves(target=Target(macs=0.3)))


class Summed(Criterion):
    """Scores weights as they are."""

    name: ClassVar[str] = "summed"

    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        return RunningScores(targets, lambda weight, _: weight.abs(), decay=0.0, gradients=False)


class Greedy(Summed):
    """Doubles the weights that it is shown."""

    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        return RunningScores(targets, lambda weight, _: weight.mul_(2), decay=0.0, gradients=False)


class Forgetful(RunningScores):
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


class Resumed(Summed):
    """Does not go on where it was."""

    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        return Forgetful(targets, lambda weight, _: weight.abs(), decay=1.0, gradients=False)


class OneBatch(RunningScores):
    """A mean of what it saw, which takes any saved state for that of one batch."""

    seen = 0

    def observe(self, **shown: Any) -> None:
        super().observe(**shown)
        self.seen += 1

    def scores(self) -> dict[str, Tensor]:
        return {name: one / self.seen for name, one in super().scores().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.seen = 1


class Miscounted(Summed):
    """Goes on where it was, as long as that was after the first batch."""

    def start(self, targets: Mapping[str, tuple[int, ...]]) -> CriterionRun:
        return OneBatch(targets, lambda weight, _: weight.abs(), decay=1.0, gradients=False)


class Needy(Summed):
    """Wants what nobody shows."""

    needs: ClassVar[frozenset[str]] = frozenset({"hessians"})


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (Greedy(), "observe changed the weights"),
        (Resumed(), "a resumed run gave other scores"),
        (Miscounted(), "a resumed run gave other scores"),
        (Needy(), "expected some of"),
    ],
)
def test_a_criterion_that_breaks_its_contract_is_found(criterion: Criterion, message: str):
    assert_criterion_conforms(Summed())
    with pytest.raises(AssertionError, match=message):
        assert_criterion_conforms(criterion)


class Rows(SparsityPattern):
    """Four rows together, it says."""

    name: ClassVar[str] = "rows-of-four"
    size: ClassVar[int] = 3

    @property
    def label(self) -> str:
        return "rows of four"

    def blocks(self, shape: tuple[int, int]) -> Blocks:
        del shape
        return Blocks(self.size, 1, self.size)


def test_a_pattern_whose_blocks_do_not_cover_a_weight_is_found():
    with pytest.raises(AssertionError, match="do not cover"):
        assert_pattern_conforms(Rows())


class Drift(Loss):
    """The squared distance of logits."""

    name: ClassVar[str] = "drift"
    mean: ClassVar[bool] = True

    def start(self, session: Session) -> LossRun:
        del session
        mean = self.mean

        class Run(LossRun):
            def __call__(self, student: Any, teacher: Any, batch: Mapping[str, Tensor]) -> Tensor:
                del batch
                squares = (student.logits - teacher.logits).square().sum(dim=1)
                return squares.mean() if mean else squares.sum()

        return Run()


class Total(Drift):
    """The sum in place of the mean."""

    mean: ClassVar[bool] = False


def test_a_loss_that_is_no_mean_is_found():
    assert_loss_conforms(Drift())
    with pytest.raises(AssertionError, match="expected a mean over samples"):
        assert_loss_conforms(Total())


class Crossed(TinyLabels):
    """Losses that depend on the others of the batch."""

    def sample_losses(self, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        losses = super().sample_losses(z, batch)
        return losses - losses.mean()


def test_a_task_whose_losses_depend_on_the_batch_is_found():
    for task in (TinyLabels(), TinyTexts()):
        assert_task_conforms(task)
    with pytest.raises(AssertionError, match="depends on the others"):
        assert_task_conforms(Crossed())


def test_an_exporter_whose_file_is_not_the_model_is_found():
    with pytest.raises(AssertionError):
        assert_exporter_conforms(Lookup(opset=20))


class Undescribed(Summed):
    """Has an option that says nothing."""

    power: float = 1.0


class Loose(Summed):
    """Takes any option."""

    model_config = ConfigDict(extra="allow")


class Wrong(Summed):
    """Has a default that it would refuse."""

    power: float = Field(default=-1.0, ge=0, description="Exponent.")


class Mute(Summed):
    pass


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Undescribed(), "expected a description of power"),
        (Loose(), "expected unknown options to be refused"),
        (Wrong(), "greater than or equal to 0"),
        (Mute(), "expected a docstring"),
    ],
)
def test_a_declaration_that_breaks_the_rules_is_found(component: Component, message: str):
    with pytest.raises((AssertionError, ValueError), match=message):
        assert_declaration_conforms(component)


def test_a_declaration_that_imports_what_is_slow_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "onnxruntime.py").write_text("")  # in place of the real one, which takes seconds
    (tmp_path / "slow_plugin.py").write_text("import onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    module = ModuleType("slow_plugin")
    module.__file__ = str(tmp_path / "slow_plugin.py")
    monkeypatch.setitem(sys.modules, "slow_plugin", module)
    assert heavy_imports("slow_plugin") == ("onnxruntime",)
    monkeypatch.setattr("compressor.testing.declarations.heavy_imports", lambda _: ("onnxruntime",))
    with pytest.raises(
        AssertionError, match=f"importing {__name__} imports onnxruntime; import them inside its method"
    ):
        assert_declaration_conforms(Summed())
