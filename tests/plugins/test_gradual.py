"""``gradual`` on tiny models: what goes, when, in which pattern, and that a stopped training goes on to the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from compressor.errors import CompressorError, InputError
from compressor.model import Masks, fingerprint
from compressor.model.blocks import Blocks
from compressor.plugin import Pruned
from compressor.run.calls import NamedFamily
from compressor.run.pruning import applied
from compressor.run.session import Session
from compressor.train import Extension, TrainingRun
from compressor_plugins.methods import _gradual
from compressor_plugins.methods._gradual import Pruning
from compressor_plugins.methods._gradual_setup import set_up
from compressor_plugins.methods._group_lasso import shrink_blocks
from compressor_plugins.methods.gradual import Gradual
from tests.plugins.sessions import labelled
from tests.plugins.test_gradual_options import BLOCKS, gradual

FFN = "intermediate"
TRAIN = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "losses": ["task"]}
"""20 steps, 5 an epoch."""
EVENTS = {"pruning_frequency": 4, "start_step": 1, "end_step": 13}


def method(**options: Any) -> Gradual:
    train = {**TRAIN, **options.pop("train", {})}
    return gradual(**{**EVENTS, "target": {"sparsity": 0.5}, "train": train, **options})


class Watching(TrainerCallback):
    """Notes the masks in force during every step, and whether weights obey them after it."""

    def __init__(self, run: TrainingRun, *, stop: int | None = None) -> None:
        self.run, self.stop = run, stop
        self.masks: list[Masks] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        self.masks.append(self.run.enforced.masks)
        for name, mask in self.run.enforced.masks.keep.items():
            assert not bool(self.run.student.get_parameter(name)[~mask].any())
        if state.global_step == self.stop:
            raise KeyboardInterrupt


def watched(
    chosen: Gradual, session: Session, monkeypatch: pytest.MonkeyPatch, **watch: Any
) -> tuple[Pruned, Watching]:
    """Run the method, with somebody watching the training."""
    watching: list[Watching] = []

    class Run(TrainingRun):
        def fit(self, extension: Extension | None = None) -> Any:
            assert extension is not None
            watching.append(Watching(self, **watch))
            return super().fit(Extension((*extension.callbacks, watching[0]), extension.states, extension.key))

    monkeypatch.setattr(_gradual, "TrainingRun", Run)
    return chosen.prune(session), watching[0]


def zeros(mask: Tensor) -> int:
    return int((~mask).sum())


@pytest.mark.parametrize("criterion", ["magnitude", "gradient", "snip", "snip_momentum", "taylor", "movement"])
def test_every_run_of_four_is_dense_or_two_of_four_on_the_way_and_two_of_four_at_the_end(
    criterion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pruned, watching = watched(method(pattern="2:4", criterion=criterion), labelled(run_dir=tmp_path), monkeypatch)
    runs = Blocks(1, 4, 2)
    for masks in watching.masks:
        assert all(runs.holds(mask) for mask in masks.keep.values())
    assert len(pruned.masks.keep) == 18
    for name, mask in pruned.masks.keep.items():
        assert ((~runs.view(mask)).sum(dim=1) == 2).all(), name
        assert not bool(pruned.weights[name][~mask].any())


def test_masks_change_at_events_only_and_the_last_one_meets_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pruned, watching = watched(method(pattern="1x1"), labelled(run_dir=tmp_path), monkeypatch)
    found = [round(masks.sparsity, 3) for masks in watching.masks]
    exp = [0, 0.206, 0.37, 0.5]
    assert found == [0.0] + [ratio for ratio in exp for _ in range(4)] + [0.5] * 3
    (figures,) = pruned.metrics["pruners"]
    assert [event["step"] for event in figures["events"]] == [1, 5, 9, 13]
    assert (figures["ratio"], figures["asked"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("pattern", "rows", "columns"), [("4x1", 4, 1), ("1x4", 1, 4), ("1xchannel", 1, None), ("channelx1", None, 1)]
)
def test_blocks_go_as_a_whole(pattern: str, rows: int | None, columns: int | None, tmp_path: Path):
    pruned = method(pattern=pattern).prune(labelled(run_dir=tmp_path))
    for mask in pruned.masks.keep.values():
        high, wide = rows or mask.shape[0], columns or mask.shape[1]
        assert Blocks(high, wide, high * wide).holds(mask)
    assert pruned.masks.sparsity == pytest.approx(0.5, abs=0.01)
    assert bool(pruned.aligned) == (pattern in {"4x1", "1x4"})


def test_scores_are_of_the_steps_before_the_event_with_the_gradients_of_whole_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session = labelled(run_dir=tmp_path)
    seen: list[dict[str, Tensor]] = []

    class Noting(Pruning):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            grounds = [pruner.ground for pruner in self.pruners]
            values = {
                n: (w * w.grad).abs().detach() for one in grounds for n, w in one.weights.items() if w.grad is not None
            }
            seen.append(values)
            super().on_pre_optimizer_step(args, state, control)

    monkeypatch.setattr(_gradual, "Pruning", Noting)
    options = {"start_step": 3, "end_step": 3, "pattern": "1x1", "pruning_scope": "local"}
    pruned = method(**options, train={"gradient_accumulation": 4}).prune(session)
    for name, mask in pruned.masks.keep.items():
        score = 0.81 * seen[0][name] + 0.9 * seen[1][name] + seen[2][name]
        assert score[~mask].max() <= score[mask].min()
        assert zeros(mask) == mask.numel() // 2


def test_parts_of_a_batch_change_no_mask(tmp_path: Path):
    one, four = (
        method(pattern="4x1", train={"dropout": False, "gradient_accumulation": parts, "epochs": 2}, end_step=9)
        .prune(labelled(run_dir=tmp_path / str(parts)))
        .masks
        for parts in (1, 4)
    )
    assert one == four


def test_a_local_scope_meets_the_target_in_every_layer_and_a_global_one_in_the_sum(tmp_path: Path):
    layers: dict[str, dict[str, float]] = {}
    for scope in ("local", "global"):
        session = labelled(run_dir=tmp_path / scope)
        with torch.no_grad():
            session.model.get_parameter("bert.encoder.layer.0.intermediate.dense.weight").mul_(1000)
        done = method(criterion="magnitude", pattern="1x1", pruning_scope=scope).prune(session)
        layers[scope] = done.metrics["pruners"][0]["layers"]
        assert done.masks.sparsity == pytest.approx(0.5, abs=1e-3)
    assert all(ratio == pytest.approx(0.5, abs=0.01) for ratio in layers["local"].values())
    assert layers["global"]["bert.encoder.layer.0.intermediate.dense"] == 0.0


def test_the_seeds_mixed_blocks_each_meet_their_target_within_their_bounds(tmp_path: Path):
    pruned = method(pruning_configs=BLOCKS, target={"sparsity": 0.9}).prune(labelled(run_dir=tmp_path))
    single, blocks = pruned.metrics["pruners"]
    assert all(ratio == pytest.approx(0.9, abs=1e-3) for ratio in single["layers"].values())
    assert {name.rsplit(".", 1)[1] for name in blocks["layers"]} == {"query", "key", "value"}
    half_a_block = 2 / 32**2
    assert all(0.5 <= ratio <= 0.98 + half_a_block for ratio in blocks["layers"].values())
    assert abs(blocks["removed"] - 0.9 * blocks["of"]) <= 4
    assert {name for name in pruned.aligned if "output" in name} == set()


def test_two_blocks_that_choose_one_layer_are_refused_by_name(tmp_path: Path):
    blocks = [{"op_names": ["output"], "pattern": "1x1"}, {"op_names": ["attention"], "pattern": "4x1"}]
    with pytest.raises(InputError, match=r"blocks 0 and 1 both mean bert.encoder.layer.0.attention.output.dense"):
        method(pruning_configs=blocks).prune(labelled(run_dir=tmp_path))


def test_the_progressive_mode_takes_blocks_apart_between_events_and_leaves_whole_ones_at_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = {"pattern": "1xchannel", "pruning_type": "snip_momentum_progressive", "sparsity_decay_type": "linear"}
    _, watching = watched(
        method(**options, pruning_frequency=8, start_step=1, end_step=17), labelled(run_dir=tmp_path), monkeypatch
    )
    found = [masks.sparsity for masks in watching.masks]
    expected = [part / 16 for part in range(8) for _ in range(2)]
    assert found[1:17] == pytest.approx(expected, abs=0.02)

    def partly(masks: Masks) -> int:
        return sum(int((mask.any(dim=1) & ~mask.all(dim=1)).sum()) for mask in masks.keep.values())

    counts = [partly(masks) for masks in watching.masks]
    assert counts[9] == counts[17] == counts[19] == 0
    assert all(count > 0 for count in (*counts[3:9], *counts[11:17]))


@pytest.mark.parametrize("pattern", ["1x1", "2:4"])
def test_the_progressive_mode_needs_blocks_of_four(pattern: str, tmp_path: Path):
    with pytest.raises(InputError, match="needs blocks of which 4 weights or more go"):
        method(pattern=pattern, pruning_type="snip_progressive").prune(labelled(run_dir=tmp_path))


def with_zeros(directory: Path, blocks: Blocks) -> tuple[Session, Masks]:
    """Return a session on a model with random zeros in a pattern, and where they are."""
    session = labelled(run_dir=directory)
    draw = torch.Generator().manual_seed(0)
    found = {}
    with torch.no_grad():
        for name, weight in session.model.named_parameters():
            if ".dense.weight" in name and "pooler" not in name:
                scores = torch.rand(weight.shape, generator=draw)
                gone = torch.rand(blocks.view(weight).shape[0], generator=draw) < 0.5
                found[name] = blocks.expand(gone, scores)
                weight.mul_(found[name])
    return session, Masks(found)


@pytest.mark.parametrize(
    ("pattern", "blocks"), [("1x1", Blocks(1, 1, 1)), ("2:4", Blocks(1, 4, 2)), ("4x1", Blocks(4, 1, 4))]
)
def test_locked_zeros_are_the_same_after_training(pattern: str, blocks: Blocks, tmp_path: Path):
    session, masks = with_zeros(tmp_path, blocks)
    pruned = method(pattern=pattern, pruning_type="pattern_lock", train={"epochs": 2}).prune(session)
    for name, mask in masks.keep.items():
        assert torch.equal(pruned.weights[name] != 0, mask)
        assert not torch.equal(pruned.weights[name], session.model.get_parameter(name))


def test_zeros_outside_of_the_pattern_are_not_locked(tmp_path: Path):
    session, _ = with_zeros(tmp_path, Blocks(1, 1, 1))
    with pytest.raises(InputError, match=r"gradual: 2:4 does not describe the zeros of bert\."):
        method(pattern="2:4", pattern_lock=True).prune(session)
    with pytest.raises(InputError, match="the chosen weights have none"):
        method(pattern="2:4", pattern_lock=True).prune(labelled(run_dir=tmp_path))


def test_what_gets_no_gradient_stays_dense_and_the_others_meet_the_target(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    session.teacher = copy.deepcopy(session.model)
    with torch.no_grad():
        session.model.get_parameter("bert.encoder.layer.1.output.dense.weight").mul_(0.5)
    chosen = method(pattern="4x1", excluded_op_names=[], train={"losses": ["reused-head"]})
    pruned = chosen.prune(session)
    layers = pruned.metrics["pruners"][0]["layers"]
    assert layers.pop("bert.pooler.dense") == 0
    scored = [mask for name, mask in pruned.masks.keep.items() if "pooler" not in name]
    assert sum(map(zeros, scored)) == pytest.approx(0.5 * sum(mask.numel() for mask in scored), abs=4)


def test_a_gradient_is_needed_before_everything_goes_at_once(tmp_path: Path):
    with pytest.raises(InputError, match="weights must go at step 0, and snip_momentum has seen no gradient") as error:
        method(start_step=0, end_step=0).prune(labelled(run_dir=tmp_path))
    assert "start_step 1" in error.value.hint
    pruned = method(start_step=0, end_step=0, criterion="magnitude").prune(labelled(run_dir=tmp_path / "magnitude"))
    assert pruned.masks.sparsity == pytest.approx(0.5, abs=1e-3)


def test_scores_of_zero_say_nothing(tmp_path: Path):
    train = {"losses": ["reused-head"], "dropout": False, "weight_decay": 0}
    with pytest.raises(InputError, match="snip_momentum has seen no gradient yet but zeros"):
        method(train=train).prune(labelled(run_dir=tmp_path))
    assert method(train={**train, "dropout": True}).prune(labelled(run_dir=tmp_path)).masks.sparsity > 0.4


@pytest.mark.parametrize("steps", [{"start_step": 5, "end_step": 4}, {"start_step": 1, "end_step": 20}])
def test_events_outside_of_the_training_are_refused(steps: dict[str, int], tmp_path: Path):
    with pytest.raises(InputError, match="does not lie within the 20 steps"):
        method(**steps).prune(labelled(run_dir=tmp_path))


def test_epochs_make_the_steps_of_the_events(tmp_path: Path):
    chosen = gradual(
        target={"sparsity": 0.5}, sparsity_warm_epochs=1, cooldown_epochs=1.5, pruning_frequency=3, train=TRAIN
    )
    (pruner,), _ = set_up(chosen, TrainingRun(labelled(run_dir=tmp_path), chosen.train))
    assert list(pruner.ground.schedule.events()) == [5, 8, 11]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda scores: scores[0], r"expected shape \(.*, 32\), got \(32,\)"),
        (lambda scores: scores * torch.nan, "expected numbers, .* are NaN"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_with_the_criterions_name_and_package(
    broken: Callable[[Tensor], Tensor], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen = method(criterion="magnitude")
    (pruner,), _ = set_up(chosen, TrainingRun(labelled(run_dir=tmp_path), chosen.train))
    whole = pruner.criterion.scores
    monkeypatch.setattr(pruner.criterion, "scores", lambda: {name: broken(one) for name, one in whole().items()})
    event = list(pruner.ground.schedule.events())[-1]
    with pytest.raises(CompressorError, match=rf"criterion 'magnitude' \(compressor_plugins.criteria.*{said}"):
        pruner.masks_at(event)


def test_what_an_earlier_step_removed_stays_removed_and_counts(tmp_path: Path):
    session, masks = with_zeros(tmp_path, Blocks(1, 1, 1))
    session.weight_masks = masks
    pruned = method(pattern="1x1", criterion="gradient", target={"sparsity": 0.7}).prune(session)
    for name, mask in masks.keep.items():
        assert not bool((pruned.masks.keep[name] & ~mask).any())
    assert pruned.masks.sparsity == pytest.approx(0.7, abs=1e-3)


def test_emptied_neurons_are_removed_and_the_model_stays_the_same(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    pruned = method(pattern="1xchannel", op_names=[FFN], pruning_scope="local").prune(session)
    done = applied(session, NamedFamily(session.family, "test"), pruned)
    widths = [done.model.get_submodule(f"bert.encoder.layer.{i}.intermediate.dense").weight.shape[0] for i in range(3)]
    assert widths == [24] * 3
    assert done.figures["removal_max_abs_diff"] < 1e-5
    assert sum(done.figures["emptied_units"].values()) == 72


def test_the_group_lasso_shrinks_every_block_by_its_share():
    weight = torch.tensor([[3.0, 0.1], [4.0, 0.0], [0.0, 0.6], [0.0, 0.8]])
    shrink_blocks(weight, Blocks(2, 1, 2), 0.5)
    assert torch.allclose(weight, torch.tensor([[2.7, 0.0], [3.6, 0.0], [0.0, 0.3], [0.0, 0.4]]))


def test_the_group_lasso_leaves_smaller_weights(tmp_path: Path):
    norms = []
    for number, lasso in enumerate(({}, {"reg_type": "group_lasso", "reg_coeff": 5.0})):
        pruned = method(pattern="4x1", **lasso).prune(labelled(run_dir=tmp_path / str(number)))
        norms.append(float(sum(pruned.weights[name].norm() for name in pruned.masks.keep)))
    assert norms[1] < 0.98 * norms[0]


STOPS = {"before the first event": 4, "on the way": 11, "after the last event": 17}
"""Steps (of 20) that are followed by a kill; there are checkpoints every three steps."""


@pytest.mark.parametrize("mode", ["snip_momentum", "snip_momentum_progressive"])
@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_stopped_pruning_goes_on_to_the_same_bits(
    stop: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen = method(
        pattern="4x1", pruning_type=mode, pruning_frequency=4, start_step=5, end_step=13, train={"checkpoint_every": 3}
    )
    whole, _ = watched(chosen, labelled(run_dir=tmp_path / "whole"), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        watched(chosen, labelled(run_dir=tmp_path / "stopped"), monkeypatch, stop=stop)
    monkeypatch.undo()
    resumed = chosen.prune(labelled(run_dir=tmp_path / "stopped"))
    assert resumed.metrics["training"].pop("resumed_from_step") == (stop - 1) // 3 * 3
    assert resumed.masks == whole.masks
    assert all(torch.equal(value, whole.weights[name]) for name, value in resumed.weights.items())
    assert resumed.metrics == whole.metrics


def test_the_model_of_the_session_stays_as_it_is(tmp_path: Path):
    session = labelled(run_dir=tmp_path)
    before = fingerprint(session.model)
    method(pattern="2:4").prune(session)
    assert fingerprint(session.model) == before
