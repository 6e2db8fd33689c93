"""Lists of values: where they may stand, what they become, and every mistake at once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError, RecipeError
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.sweep import SweepPlan, compile_sweep
from tests.recipe.conftest import GOOD, Compile
from tests.test_house import ROOT

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
    assert [(point.name, point.settings) for point in sweep.points] == [
        ("macs-0.8", {MACS: 0.8}),
        ("macs-0.4", {MACS: 0.4}),
    ]
    assert sweep.path == MACS
    for point in sweep.points:
        alone = compiled(LIST, overrides=[f"{MACS}={point.settings[MACS]}"])
        assert point.plan.digest == alone.digest
        assert point.plan.recipe.overrides == alone.recipe.overrides
    assert sweep.points[1].call == f"{MACS} = 0.4"


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
    families = [len(family) for family in swept(text, *over).families]
    assert families == [2] * shared


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
        (GOOD, ("seed=0,1", "seed=2"), "--over seed  seed: is given twice; write all values into one list"),
        (GOOD, ("seed={a: 1, a: 2}",), "--over seed:1  0.a: this key was given already in line 1"),
        (GOOD, ("seed=0,null",), "--over seed  seed: expected a value in the list, got null"),
        (GOOD, ("seed=[0,1",), "--over seed:1  not valid YAML"),
        (GOOD, ("seed=[]",), "seed: the list is empty"),
        (GOOD, ("seed=0,often",), "--over seed  seed: expected an integer >= 0, got 'often'"),
        (GOOD, ("seed=0,0",), "--over seed  seed: 0 asks for the same run as an earlier value of the list"),
        (GOOD, ("name=a,b",), "--over name  name: 'b' asks for the same run as an earlier value of the list"),
        (GOOD, ("model.x=1,2",), "--over model.x  model is 'owner/model', which has no 'x'"),
        (GOOD, ("steps.0.prune.target.latency=0.5",), "x.yaml:9  steps.0.prune.target: expected exactly one of macs, "),
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


def test_several_lists_make_every_combination(swept: Swept, compiled: Compile):
    sweep = swept(LIST, "seed=0,1", "steps.0.prune.exact=true,false")
    assert sweep.path == f"seed x steps.0.prune.exact x {MACS}"
    assert [point.name for point in sweep.points] == [
        f"seed-{seed}_exact-{exact}_macs-{macs}"
        for seed in (0, 1)
        for exact in ("true", "false")
        for macs in (0.8, 0.4)
    ]
    point = sweep.points[5]
    assert point.settings == {"seed": 1, "steps.0.prune.exact": True, MACS: 0.4}
    assert point.call == f"seed = 1, steps.0.prune.exact = true, {MACS} = 0.4"
    alone = compiled(LIST, overrides=["seed=1", "steps.0.prune.exact=true", f"{MACS}=0.4"])
    assert point.plan.digest == alone.digest
    assert [[one.name for one in family] for family in sweep.families] == [
        [f"seed-{seed}_exact-{exact}_macs-{macs}" for macs in (0.8, 0.4)]
        for seed in (0, 1)
        for exact in ("true", "false")
    ]


def test_commas_inside_brackets_belong_to_a_value(swept: Swept):
    sweep = swept(
        GOOD,
        "steps.0.prune.target={macs: 0.5, sequence: 8},{macs: 0.25}",
        "steps.0.prune.criterion=sailor,{name: sailor, samples: 2}",
    )
    assert [point.name for point in sweep.points] == [
        f"target-{target}_criterion-{criterion}"
        for target in ("macs-0.5-sequence-8", "macs-0.25")
        for criterion in ("sailor", "sailor-samples-2")
    ]


def test_a_list_may_stand_inside_of_another_ones_place(swept: Swept):
    steps = "{method: toy, target: {macs: 0.9}},{method: toy, damping: 0.25, target: {macs: 0.9}}"
    sweep = swept(LIST, f"{MACS}=0.3,0.2", f"steps.0.prune={steps}")
    assert {point.plan.resolved()["steps"][0]["prune"]["target"]["macs"] for point in sweep.points} == {0.3, 0.2}
    assert len({point.plan.digest for point in sweep.points}) == 4


def test_places_of_the_same_name_are_told_apart_and_long_names_are_cut(swept: Swept):
    text = LIST.replace("steps:\n", "steps:\n  - prune: {method: toy, target: {macs: 0.9}}\n")
    names = [point.name for point in swept(text, f"{MACS}=0.9,0.7").points]
    assert names[0] == "0.prune.target.macs-0.9_1.prune.target.macs-0.8"
    long = [point.name for point in swept(GOOD, f"model={'x' * 200},{'x' * 201}").points]
    assert len(set(long)) == 2
    assert {len(name) for name in long} == {120}


def test_a_mistake_of_a_combination_names_what_it_is_made_of(swept: Swept):
    with pytest.raises(RecipeError) as caught:
        swept(GOOD, "steps.0.prune.method=toy,nothing", f"{MACS}=0.5,7", "seed=1,x")
    assert [str(problem) for problem in caught.value.problems] == [
        "--over seed  seed: expected an integer >= 0, got 'x'",
        f"--over {MACS}  {MACS}: expected a number in (0, 1], got 7, with steps.0.prune.method = 'toy'",
        "--over steps.0.prune.method  steps.0.prune.method: unknown method 'nothing'; installed: toy",
    ]


def test_what_the_page_shows_compiles(tmp_path: Path):
    page = (ROOT / "docs" / "sweep.md").read_text()
    lines = [line for line in page.replace("\\\n", "").splitlines() if line.startswith("compress sweep")]
    shown = [shlex.split(line) for line in lines]
    cells = re.findall(r"`(--over [^`]*)`", page.partition("## What it leaves")[0])
    cells = [cell for cell in cells if "{...}" not in cell and "PATH" not in cell]
    assert (len(lines), len(cells)) == (2, 5)
    registry = Registry.load()
    fisher = ROOT / "recipes" / "minilm_mrpc_fisher.yaml"
    one_shot = tmp_path / "one_shot.yaml"
    one_shot.write_text(
        fisher.read_text().replace(
            "method: fisher, target: {macs: 0.6, sequence: 53}", "method: one_shot, target: {sparsity: 0.5}"
        )
    )
    for words in [*shown, *map(shlex.split, cells)]:
        over = [words[number + 1] for number, word in enumerate(words) if word == "--over"]
        recipe = one_shot if "pattern" in over[0] else fisher
        assert len(compile_sweep(load_recipe(recipe), registry, over=over).points) > 1


def test_a_list_is_no_target_of_a_single_run(compiled: Compile):
    with pytest.raises(RecipeError) as caught:
        compiled(LIST)
    assert str(caught.value).endswith(
        f"x.yaml:9  {MACS}: expected a number in (0, 1], got [0.8, 0.4], a list; next step: compress sweep"
    )
