"""Lists of values: where they may stand, what they become, and every mistake at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError, RecipeError
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.sweep import SweepPlan, compile_sweep
from tests.recipe.conftest import GOOD, Compile

LIST = GOOD.replace("macs: 0.5", "macs: [0.8, 0.4]")
MACS = "steps.0.prune.target.macs"
Swept = Callable[..., SweepPlan]


@pytest.fixture
def swept(tmp_path: Path, registry: Registry) -> Swept:
    """Compile the text of a sweep's recipe against the toys."""

    def compile_text(text: str = LIST, *over: str, **options: Any) -> SweepPlan:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return compile_sweep(load_recipe(path, **options), registry, over=over)

    return compile_text


def test_every_value_makes_the_plan_that_set_makes(swept: Swept, compiled: Compile):
    sweep = swept()
    assert [(point.name, point.value) for point in sweep.points] == [("macs-0.8", 0.8), ("macs-0.4", 0.4)]
    assert sweep.path == MACS
    for point in sweep.points:
        alone = compiled(LIST, overrides=[f"{MACS}={point.value}"])
        assert point.plan.digest == alone.digest
        assert point.plan.recipe.overrides == alone.recipe.overrides
    assert sweep.call(sweep.points[1]) == f"{MACS} = 0.4"


@pytest.mark.parametrize("over", [f"{MACS}=0.8,0.4", f"{MACS}=[0.8, 0.4]", f" {MACS} = 8e-1 , 0.4"])
@pytest.mark.parametrize("text", [GOOD, GOOD.replace("macs: 0.5", "macs: [0.7, 0.6, 0.1]")])
def test_the_command_line_gives_the_list_or_replaces_it(swept: Swept, over: str, text: str):
    assert swept(text, over).digest == swept().digest


def test_set_can_write_the_list_into_the_recipe(swept: Swept):
    assert swept(GOOD, overrides=[f"{MACS}=[0.8, 0.4]"]).digest == swept().digest


@pytest.mark.parametrize(
    ("over", "names"),
    [
        ("seed=0,1", ["seed-0", "seed-1"]),
        ("calibration.samples=64,128", ["samples-64", "samples-128"]),
        ("steps.0.prune.tuning=scales,none", ["tuning-scales", "tuning-none"]),
        ("steps.0.prune.exact=true,false", ["exact-true", "exact-false"]),
        ("model=owner/one,owner/two", ["model-owner-one", "model-owner-two"]),
        ("model=owner/one,owner-one", ["model-owner-one-1", "model-owner-one-2"]),
    ],
)
def test_any_value_that_set_replaces_can_be_swept(swept: Swept, over: str, names: list[str]):
    assert [point.name for point in swept(GOOD, over).points] == names


@pytest.mark.parametrize(
    ("text", "over", "shared"),
    [
        (LIST, (), True),
        (GOOD.replace("macs: 0.5", "macs: 0.5, sequence: [8, 16]"), (), True),
        (GOOD, ("seed=0,1",), False),
        (GOOD, ("steps.0.prune.damping=0.1,0.2",), False),
        (LIST.replace("steps:\n", "steps:\n  - prune: {method: toy, target: {macs: 0.9}}\n"), (), False),
    ],
    ids=["amount", "length", "seed", "another option", "second step"],
)
def test_pruning_is_shared_where_points_differ_in_the_target_of_the_first_step(
    swept: Swept, text: str, over: tuple[str, ...], *, shared: bool
):
    assert swept(text, *over).shares_pruning is shared


def test_the_digest_is_of_the_points(swept: Swept):
    digests = {swept(GOOD, f"{MACS}={values}").digest for values in ("0.8,0.4", "0.4,0.8", "0.8,0.3", "0.8")}
    assert len(digests) == 4
    assert swept(LIST.replace("seed: 3", "seed: 4")).digest != swept().digest


@pytest.mark.parametrize(
    ("text", "over", "message"),
    [
        (
            GOOD,
            (),
            "x.yaml: nothing to sweep over: no target holds a list, and --over is not given\n  next: compress sweep ",
        ),
        (GOOD, ("seed",), "--over seed: expected path=value,value,..., got 'seed'"),
        (GOOD, ("seed=",), "--over seed=: expected path=value,value,..."),
        (GOOD, ("=1,2",), "--over =1,2: expected path=value,value,..."),
        (GOOD, ("seed=0,1", "seed=2"), "--over is given 2 times; a sweep goes over one list"),
        (GOOD, ("seed=[0,1",), "--over seed:1  not valid YAML"),
        (GOOD, ("seed=[]",), "seed: the list is empty"),
        (GOOD, ("seed=0,often",), "--over seed  seed: expected an integer >= 0, got 'often'"),
        (GOOD, ("seed=0,0",), "--over seed  seed: 0 asks for the same run as an earlier value of the list"),
        (GOOD, ("name=a,b",), "--over name  name: 'b' asks for the same run as an earlier value of the list"),
        (GOOD, ("model.x=1,2",), "--over model.x  model is 'owner/model', which has no 'x'"),
        (GOOD, ("steps.0.prune.target.latency=0.5",), "x.yaml:9  steps.0.prune.target: expected exactly one of macs, "),
        (LIST, ("seed=0,1",), f"x.yaml:9  {MACS}: is a list, and so is seed; a sweep goes over one list"),
        (
            GOOD.replace("macs: 0.5", "macs: [0.8, 0.4], batch: [1, 8]"),
            (),
            f"x.yaml:9  steps.0.prune.target.batch: is a list, and so is {MACS}; a sweep goes over one list",
        ),
        (LIST.replace("[0.8, 0.4]", "[]"), (), f"x.yaml:9  {MACS}: the list is empty"),
        (LIST.replace("0.4", "null"), (), f"x.yaml:9  {MACS}: expected a number, a word, true or false in the list"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_error(swept: Swept, text: str, over: tuple[str, ...], message: str):
    with pytest.raises(InputError) as caught:
        swept(text, *over)
    assert message in str(caught.value)


def test_every_mistake_of_every_point_is_reported_once_and_where_it_is_written(swept: Swept, tmp_path: Path):
    text = GOOD.replace("{macs: 0.5}", "\n        macs:\n          - 0.8\n          - 60\n          - -1")
    with pytest.raises(RecipeError) as caught:
        swept(text.replace("seed: 3", "seed: x"))
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems] == [
        "x.yaml:5  seed: expected an integer >= 0, got 'x'",
        f"x.yaml:12  {MACS}: expected a number in (0, 1], got 60",
        f"x.yaml:13  {MACS}: expected a number in (0, 1], got -1",
    ]


def test_a_list_is_no_target_of_a_single_run(compiled: Compile):
    with pytest.raises(RecipeError) as caught:
        compiled(LIST)
    assert str(caught.value).endswith(
        f"x.yaml:9  {MACS}: expected a number in (0, 1], got [0.8, 0.4], a list; next step: compress sweep"
    )
