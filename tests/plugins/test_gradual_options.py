"""The settings of ``gradual``: the seed's names and ours, blocks of them, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressor.plugin import Registry, Target
from compressor_plugins.criteria.snip import Snip, SnipMomentum
from compressor_plugins.methods._gradual_options import PrunerOptions
from compressor_plugins.methods.gradual import Gradual
from compressor_plugins.patterns.block import Block

BLOCKS: list[dict[str, Any]] = [
    {
        "op_names": [".*output", ".*intermediate"],
        "pattern": "1x1",
        "pruning_scope": "local",
        "pruning_type": "snip_momentum",
        "sparsity_decay_type": "exp",
        "pruning_op_types": ["Linear"],
    },
    {
        "op_names": [".*query", ".*key", ".*value"],
        "pattern": "4x1",
        "pruning_scope": "global",
        "pruning_type": "snip_momentum",
        "sparsity_decay_type": "exp",
        "max_sparsity_ratio_per_op": 0.98,
        "min_sparsity_ratio_per_op": 0.5,
        "pruning_op_types": ["Linear"],
    },
]
"""The mixed pattern of the seed document, key for key."""

CONTEXT = {"registry": Registry.load()}


def gradual(**options: Any) -> Gradual:
    """Validate the method as a recipe would."""
    return Gradual.model_validate(options, context=CONTEXT)


def mistake(**options: Any) -> str:
    """Return the only error."""
    with pytest.raises(ValidationError) as caught:
        gradual(**options)
    (error,) = caught.value.errors()
    return error["msg"]


def test_without_blocks_the_method_is_one_pruner_with_the_seeds_defaults():
    (pruner,) = gradual().pruners
    assert (pruner.target, pruner.pattern, pruner.criterion) == (Target(sparsity=0.9), Block(rows=4), SnipMomentum())
    assert (pruner.pruning_scope, pruner.sparsity_decay_type, pruner.max_sparsity_ratio_per_op) == (
        "global",
        "exp",
        0.98,
    )


def test_the_seeds_blocks_paste_in_and_win_over_the_methods_own_options():
    method = gradual(
        target={"sparsity": 0.8}, pruning_frequency=50, pruning_scope="global", pattern="2:4", pruning_configs=BLOCKS
    )
    local, wide = method.pruners
    assert [one.chosen_pattern.label for one in (local, wide)] == ["1x1", "4x1"]
    assert [one.pruning_scope for one in (local, wide)] == ["local", "global"]
    assert [one.min_sparsity_ratio_per_op for one in (local, wide)] == [0.0, 0.5]
    assert [(one.sparsity, one.pruning_frequency) for one in (local, wide)] == [(0.8, 50)] * 2


def test_a_block_may_have_a_target_of_its_own_and_leave_its_pattern_to_the_method():
    method = gradual(target={"sparsity": 0.5}, pattern="1x1", pruning_configs=[{"target_sparsity": 0.7}, {}])
    assert [(one.sparsity, one.chosen_pattern.label) for one in method.pruners] == [(0.7, "1x1"), (0.5, "1x1")]


def test_options_validate_back_with_what_blocks_leave_open_still_open():
    method = gradual(pruning_configs=BLOCKS, target={"sparsity": 0.8})
    options = method.options()
    again = gradual(**options)
    assert again == method
    assert gradual(**{**options, "target": {"sparsity": 0.7}}).pruners[0].sparsity == 0.7
    assert "target" not in options["pruning_configs"][0]
    assert {"pruning_type", "target_sparsity"}.isdisjoint({*options, *options["pruning_configs"][0]})


def test_a_pattern_that_nobody_uses_is_not_said():
    assert gradual(pruning_configs=BLOCKS).pattern is None
    assert gradual(pruning_configs=[{}]).pattern == Block(rows=4)


@pytest.mark.parametrize(
    ("alias", "own"),
    [
        ({"pruning_type": "snip"}, {"criterion": "snip"}),
        ({"pruning_type": "snip_progressive"}, {"criterion": "snip", "progressive": True}),
        ({"pruning_type": "snip_momentum_progressive"}, {"criterion": "snip_momentum", "progressive": True}),
        ({"pruning_type": "pattern_lock"}, {"pattern_lock": True}),
        ({"target_sparsity": 0.4}, {"target": {"sparsity": 0.4}}),
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_the_seeds_names_mean_ours(alias: dict[str, Any], own: dict[str, Any]):
    assert gradual(**alias) == gradual(**own)
    assert gradual(**alias) != gradual()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pruning_type": "snip", "criterion": "snip"}, "expected criterion or pruning_type"),
        ({"pruning_type": "snip_progressive", "progressive": True}, "expected progressive or pruning_type"),
        ({"target_sparsity": 0.5, "target": {"sparsity": 0.5}}, "expected target or target_sparsity"),
        ({"start_step": 1, "sparsity_warm_epochs": 1}, "expected start_step or sparsity_warm_epochs"),
        ({"end_step": 1, "cooldown_epochs": 1}, "expected end_step or cooldown_epochs"),
    ],
)
def test_an_option_given_twice_is_a_mistake(options: dict[str, Any], said: str):
    assert said in mistake(**options)
    assert said in mistake(pruning_configs=[{"pattern": "1x1", **options}])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "wanda"}, "wanda reads activations"),
        ({"target": {"macs": 0.5}}, "expected target.sparsity; got target.macs"),
        ({"pattern": "2:4", "target": {"sparsity": 0.6}}, "pattern 2:4 removes at most 0.5; got sparsity 0.6"),
        ({"pattern": "1:4"}, "'1:4' is ambiguous"),
        ({"target": {"sparsity": 0.99}}, "max_sparsity_ratio_per_op; got 0, 0.99, 0.98"),
        ({"min_sparsity_ratio_per_op": 0.95}, "got 0.95, 0.9, 0.98"),
        ({"sparsity_warm_epochs": 1, "cooldown_epochs": 2}, "below train.epochs; got 3 of 3"),
        ({"train": {"precision": "fp16", "max_grad_norm": 0}}, "expected train.max_grad_norm above 0 with fp16"),
        ({"criterion": "tailor"}, "did you mean 'taylor'"),
        (
            {"pruning_configs": [{"pattern": "1x1"}, {"pattern": "2:4"}]},
            "pruning_configs.1: pattern 2:4 removes at most",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(options: dict[str, Any], said: str):
    assert said in mistake(**options)


def test_locked_zeros_need_no_target_that_fits_the_pattern():
    assert gradual(pruning_type="pattern_lock", pattern="2:4").pattern_lock


def test_the_losses_of_the_training_depend_on_the_task_as_those_of_the_step_train_do():
    assert gradual().train.losses[0].name == "task"
    assert gradual(train={"losses": ["reused-head"], "epochs": 9}).train.epochs == 9


def test_a_block_has_every_option_of_the_method():
    names = set(PrunerOptions.model_fields)
    assert names <= set(Gradual.model_fields)
    assert isinstance(gradual(pruning_configs=[{"pruning_type": "snip"}]).pruners[0].criterion, Snip)
