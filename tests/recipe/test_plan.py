from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError, PluginError, RecipeError
from compressor.plugin import PluginFailure, Provider, Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from tests.plugin import toy_plugin
from tests.recipe.conftest import GOOD, Compile

HEAD = "model: owner/model\ntask: toy-task\n"


def test_a_recipe_compiles_into_calls(compiled: Compile):
    plan = compiled()
    assert [repr(step) for step in plan.steps] == [
        "prune(toy(target=Target(macs=0.5), criterion=sailor(samples=7)))",
        "export(toy-format())",
        "verify(batch=(1, 8), gates=Gates(latency=0.8))",
    ]
    assert [step.slug for step in plan.steps] == ["01-prune", "02-export", "03-verify"]
    assert (repr(plan.task), plan.calibration.samples, plan.calibration.seed) == ("toy-task(max_length=16)", 64, 3)
    assert (plan.recipe.name, plan.recipe.model, plan.recipe.revision) == ("toy", "owner/model", None)
    assert str(plan.providers["criterion:sailor"]) == "toys (tests.plugin.toy_plugin)"
    assert plan.lints == ()


def test_short_forms_mean_the_long_ones(compiled: Compile):
    long = compiled(f"{HEAD}name: x\nsteps: [{{export: {{format: toy-format}}}}, {{verify: {{batch: [4]}}}}]")
    short = compiled(f"{HEAD}name: y\nsteps: [export: toy-format, verify: {{batch: 4}}]")
    assert short.digest == long.digest
    bare = compiled(f"{HEAD}steps: [export: toy-format, verify]")
    assert bare.steps[1].component.options()["rounds"] == 15
    assert bare.recipe.name == "x"  # the file's


@pytest.mark.parametrize(
    "change",
    [
        ("owner/model", "owner/other"),
        ("max_length: 16", "max_length: 17"),
        ("samples: 64", "samples: 65"),
        ("samples: 64", "samples: 64, seed: 9"),
        ("seed: 3", "seed: 4"),
        ("macs: 0.5", "macs: 0.6"),
        ("samples: 7", "samples: 8"),
        ("samples: 7", "samples: 7, inner: extent"),
        ("sailor, samples: 7", "extent"),
        ("latency: 0.8", "latency: 0.9"),
        ("seed: 3", "seed: 3\nrevision: main"),
    ],
)
def test_whatever_changes_the_result_changes_the_digest(compiled: Compile, change: tuple[str, str]):
    assert GOOD.count(change[0]) == 1
    assert compiled(GOOD.replace(*change)).digest != compiled().digest


def test_the_digest_ignores_the_name_and_spelt_out_defaults_and_the_order_of_keys(compiled: Compile):
    same = GOOD.replace("name: toy\n", "name: another\n", 1).replace(
        "method: toy\n", "method: toy\n      damping: 0.5\n"
    )
    same = same.replace("name: sailor, samples: 7", "samples: 7, name: sailor")
    assert compiled(same).digest == compiled().digest


def test_another_version_of_a_nested_provider_changes_the_digest(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    digests = set()
    for version in ("1.0", "1.1"):
        registry = Registry()
        registry.register(toy_plugin, "toys", provider=Provider("toys", version, "toy_plugin"))
        digests.add(compile_plan(load_recipe(path), registry).digest)
    assert len(digests) == 2


def test_overrides_are_yaml_and_end_up_in_the_recipe(compiled: Compile):
    overrides = ("steps.0.prune.target.macs=1e-1", "task.max_length=32", "steps.2.verify.batch=[2, 4]", "name=no")
    plan = compiled(model="owner/other", overrides=overrides)
    assert repr(plan.steps[0].component).startswith("toy(target=Target(macs=0.1)")
    assert plan.steps[2].component.options()["batch"] == [2, 4]
    assert (plan.task.max_length, plan.recipe.name, plan.recipe.model) == (32, "no", "owner/other")
    assert plan.recipe.overrides == (*overrides, "model=owner/other")


STEPS = "steps: [export: toy-format, verify]\n"
PRUNE = HEAD + "steps:\n  - prune: {method: toy, %s}\n  - export: toy-format\n"


def prune(options: str) -> str:
    """Return a recipe whose prune step, in line 4, has these options."""
    return PRUNE % options


BROKEN = {
    "missing model": ("task: toy-task\n" + STEPS, "x.yaml:1  model: is missing; expected text"),
    "missing task": ("model: a/b\n" + STEPS, "x.yaml:1  task: is missing"),
    "missing steps": (HEAD, "x.yaml:1  steps: is missing; expected a list"),
    "no steps": (HEAD + "steps: []", "x.yaml:3  steps: expected a list, got []"),
    "steps no list": (HEAD + "steps: {export: toy-format}", "x.yaml:3  steps: expected a list, got {"),
    "unknown key": (HEAD + STEPS + "sede: 3", "x.yaml:4  sede: unknown option 'sede'; did you mean 'seed'?"),
    "duplicate key": (HEAD + STEPS + "model: c/d", "x.yaml:4  model: this key was given already in line 1"),
    "wrong type": (HEAD + STEPS + "seed: often", "x.yaml:4  seed: expected an integer >= 0, got 'often'"),
    "truth as number": (HEAD + STEPS + "seed: true", "x.yaml:4  seed: expected an integer >= 0, got true"),
    "model no text": (f"model: 3\ntask: toy-task\n{STEPS}", "x.yaml:1  model: expected text, got 3"),
    "model not there": (
        f"model: ./no/such\ntask: toy-task\n{STEPS}",
        "x.yaml:1  model: no such directory: './no/such'",
    ),
    "task no name": ("model: a/b\ntask: {max_length: 8}\n" + STEPS, "x.yaml:2  task: expected the name of a task"),
    "task unknown": (
        "model: a/b\ntask: {name: toy-tsk}\n" + STEPS,
        "x.yaml:2  task.name: unknown task 'toy-tsk'; did you mean 'toy-task'?",
    ),
    "calibration type": (HEAD + STEPS + "calibration: 512", "x.yaml:4  calibration: expected a mapping of samples, "),
    "samples and tokens": (
        HEAD + STEPS + "calibration: {samples: 8, tokens: 9}",
        "x.yaml:4  calibration: expected samples or tokens; got both",
    ),
    "unknown step": (
        HEAD + "steps: [exprot: toy-format]",
        "x.yaml:3  steps.0.exprot: unknown step 'exprot'; did you mean 'export'?; known steps: prune, train, export, ",
    ),
    "train without losses": (
        HEAD + "steps: [train: {epochs: 1}]",
        "x.yaml:3  steps.0.train.losses: unknown loss 'task'; installed: none",
    ),
    "quantize": (
        HEAD + "steps: [export: toy-format, quantize: int8]",
        "x.yaml:3  steps.1.quantize: unknown quantizer 'int8'; installed: none",
    ),
    "two verbs": (
        HEAD + "steps:\n  - prune: {}\n    export: toy-format",
        "x.yaml:4  steps.0: expected one step, such as 'prune: {...}', got the keys prune, export",
    ),
    "step no mapping": (HEAD + "steps: [3]", "x.yaml:3  steps.0: expected one step, such as 'prune: {...}', got 3"),
    "options no mapping": (
        HEAD + "steps: [export: [1]]",
        "x.yaml:3  steps.0.export: expected a mapping of options, got [1]",
    ),
    "verify by name": (
        HEAD + "steps:\n  - export: toy-format\n  - verify: fast",
        "x.yaml:5  steps.1.verify: expected a mapping of options, got 'fast'",
    ),
    "no method": (
        HEAD + "steps: [prune: {target: {macs: 0.5}}]",
        "x.yaml:3  steps.0.prune.method: is missing; expected the name of a method: toy",
    ),
    "unknown method": (
        HEAD + "steps: [prune: {method: tyo, target: {macs: 0.5}}]",
        "x.yaml:3  steps.0.prune.method: unknown method 'tyo'; did you mean 'toy'?",
    ),
    "method no text": (
        HEAD + "steps: [prune: {method: [toy]}]",
        'steps.0.prune.method: got ["toy"]; expected the name',
    ),
    "no target": (prune("damping: 0.1"), "x.yaml:4  steps.0.prune.target: is missing; expected a mapping of macs, "),
    "unknown option": (
        prune("target: {macs: 0.5}, tunning: none"),
        "x.yaml:4  steps.0.prune.tunning: unknown option 'tunning'; did you mean 'tuning'?",
    ),
    "unlike any option": (
        prune("target: {macs: 0.5}, zzz: 1"),
        "unknown option 'zzz'; known: target, criterion, extras",
    ),
    "unknown amount": (
        prune("target: {mac: 0.5}"),
        "x.yaml:4  steps.0.prune.target.mac: unknown option 'mac'; did you mean 'macs'?",
    ),
    "amount no number": (
        prune("target: {sparsity: high}"),
        "x.yaml:4  steps.0.prune.target.sparsity: expected a number in [0, 1), got 'high'",
    ),
    "amount out of range": (
        prune("target: {macs: 1.5}"),
        "x.yaml:4  steps.0.prune.target.macs: expected a number in (0, 1], got 1.5",
    ),
    "amount not finite": (prune("target: {macs: .nan}"), "target.macs: expected a number in (0, 1], got NaN"),
    "two amounts": (
        prune("target: {macs: 0.5, heads: 0.5}"),
        "x.yaml:4  steps.0.prune.target: expected exactly one of macs, params, heads, layers, latency, latency_ms, sparsity, vocabulary; got macs, heads",
    ),
    "no amount": (prune("target: {}"), "x.yaml:4  steps.0.prune.target: expected exactly one of macs, "),
    "target no mapping": (prune("target: 0.5"), "x.yaml:4  steps.0.prune.target: expected a mapping of macs, params"),
    "several targets": (
        prune("target: {macs: [0.8, 0.4]}"),
        "x.yaml:4  steps.0.prune.target.macs: expected a number in (0, 1], got [0.8, 0.4], a list; next step: compress sweep",
    ),
    "choice": (
        prune("target: {macs: 0.5}, tuning: scale"),
        "x.yaml:4  steps.0.prune.tuning: expected one of 'scales', 'none', got 'scale'; did you mean 'scales'?",
    ),
    "truth": (prune("target: {macs: 0.5}, exact: maybe"), "steps.0.prune.exact: expected true or false, got 'maybe'"),
    "null": (prune("target: {macs: 0.5}, damping:"), "steps.0.prune.damping: expected a number in [0, 1], got null"),
    "union": (
        prune("target: {macs: 0.5}, size: [1, a]"),
        'x.yaml:4  steps.0.prune.size: expected an integer or a list, each an integer, got [1, "a"]',
    ),
    "unknown criterion": (
        prune("target: {macs: 0.5}, criterion: sailer"),
        "x.yaml:4  steps.0.prune.criterion: unknown criterion 'sailer'; did you mean 'sailor'?",
    ),
    "nested option": (
        prune("target: {macs: 0.5}, criterion: {name: sailor, inner: {name: sailor, sample: 3}}"),
        "x.yaml:4  steps.0.prune.criterion.inner.sample: unknown option 'sample'; did you mean 'samples'?",
    ),
    "nested range": (
        prune("target: {macs: 0.5}, extras: [extent, {name: sailor, samples: 0}]"),
        "x.yaml:4  steps.0.prune.extras.1.samples: expected an integer >= 1, got 0",
    ),
    "one of many shapes": (
        HEAD + "steps: [export: toy-format, verify: {batch: [1, x]}]",
        "x.yaml:3  steps.1.verify.batch.1: expected an integer >= 1, got 'x'",
    ),
    "one shape": (
        HEAD + "steps: [export: toy-format, verify: {sequence: long}]",
        "x.yaml:3  steps.1.verify.sequence: expected an integer >= 2 or a list, each an integer >= 2, got 'long'",
    ),
    "unknown gate": (
        HEAD + "steps: [export: toy-format, verify: {gates: {latncy: 0.5}}]",
        "steps.1.verify.gates.latncy: unknown option 'latncy'; did you mean 'latency'?",
    ),
    "prune after export": (
        HEAD + "steps: [export: toy-format, prune: {method: toy, target: {macs: 0.5}}]",
        "x.yaml:3  steps.1.prune: expected before export",
    ),
    "second export": (
        HEAD + "steps:\n  - export: toy-format\n  - export: toy-format",
        "x.yaml:5  steps.1.export: expected one export step in a recipe, this is another",
    ),
    "second verify": (
        HEAD + "steps:\n  - export: toy-format\n  - verify\n  - verify: {batch: 8}",
        "x.yaml:6  steps.2.verify: expected one verify step in a recipe, this is another",
    ),
    "name of another place": (
        HEAD + STEPS + "name: ../x",
        "x.yaml:4  name: expected letters, digits, '.', '_' and '-', not starting with '.'; got '../x'",
    ),
    "hidden name": (HEAD + STEPS + "name: .x", "x.yaml:4  name: expected letters, digits"),
    "empty name": (HEAD + STEPS + 'name: ""', "x.yaml:4  name: expected letters, digits"),
    "name no text": (HEAD + STEPS + "name: 3", "x.yaml:4  name: expected text, got 3"),
    "verify before export": (
        HEAD + "steps: [verify, export: toy-format]",
        "steps.0.verify: expected after an export step",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recipe_gives_one_clear_message(compiled: Compile, name: str):
    text, message = BROKEN[name]
    with pytest.raises(RecipeError) as caught:
        compiled(text)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1
    assert caught.value.exit_code == 2


def test_every_mistake_is_reported_at_once_in_the_order_of_lines(compiled: Compile):
    text = (
        "modle: a/b\ntask: {name: toy-tsk}\nseed: x\ncalibration: {samples: 0}\nsteps:\n"
        "  - prune: {method: toy, target: {macs: 2}, damping: 3, criterion: sailer}\n"
        "  - quantise: {}\n  - export: {format: toy-format, opset: old}\n  - 7\n  - verify: {rounds: 1, gates: {x: 1}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        compiled(text)
    found = [(problem.line, problem.path) for problem in caught.value.problems]
    assert found == sorted(found, key=lambda place: place[0])
    assert {path for _, path in found} == {
        "model",
        "modle",
        "task.name",
        "seed",
        "calibration.samples",
        "steps.0.prune.target.macs",
        "steps.0.prune.damping",
        "steps.0.prune.criterion",
        "steps.1.quantise",
        "steps.2.export.opset",
        "steps.3",
        "steps.4.verify.rounds",
        "steps.4.verify.gates.x",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": ["steps.0.prune.target.macs"]}, "expected path=value, got 'steps.0.prune.target.macs'"),
        ({"overrides": ["=3"]}, "expected path=value, got '=3'"),
        (
            {"overrides": ["steps.7.prune=3"]},
            "--set steps.7.prune  steps is a list of 3: expected a position from 0 to 2",
        ),
        ({"overrides": ["model.x=3"]}, "--set model.x  model is 'owner/model', which has no 'x'"),
        ({"overrides": ["seed=[1"]}, "--set seed:1  not valid YAML"),
        ({"overrides": ["seed={a: 1, a: 2}"]}, "this key was given already"),
        ({"overrides": ["seed=x"]}, "--set seed  seed: expected an integer >= 0, got 'x'"),
        ({"overrides": ["steps.0.prune.target.macs=[0.8, 0.4]"]}, "got [0.8, 0.4], a list; next step: compress sweep"),
        ({"overrides": ["tsak.path=x"]}, "--set tsak.path  tsak: unknown option 'tsak'; did you mean 'task'?"),
        ({"model": "./no/such"}, "--model  model: no such directory: './no/such'"),
        ({"model": __file__}, "--model  model: expected a directory, got the file"),
    ],
)
def test_a_bad_override_is_named_instead_of_a_line(compiled: Compile, options: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        compiled(**options)
    assert message in str(caught.value)


SHORT = HEAD + "steps: [export: toy-format, verify]"


@pytest.mark.parametrize(
    ("override", "calls"),
    [
        ("steps.1.verify.rounds=4", ["export(toy-format())", "verify(rounds=4)"]),
        ("steps.1.verify.gates.macs=0.5", ["export(toy-format())", "verify(gates=Gates(macs=0.5))"]),
        ("steps.1.verify={rounds: 4}", ["export(toy-format())", "verify(rounds=4)"]),
        ("steps.0.export.opset=21", ["export(toy-format(opset=21))", "verify()"]),
        ("steps.0.export.format=toy-format", ["export(toy-format())", "verify()"]),
    ],
)
def test_an_override_leads_into_a_step_written_short(compiled: Compile, override: str, calls: list[str]):
    assert [repr(step) for step in compiled(SHORT, overrides=[override]).steps] == calls


@pytest.mark.parametrize("override", ["steps.1.rounds=4", "steps.1.export.opset=21", "steps.x.verify.rounds=4"])
def test_an_override_that_misses_a_short_step_gets_no_wrong_advice(compiled: Compile, override: str):
    with pytest.raises(RecipeError) as caught:
        compiled(SHORT, overrides=[override])
    assert f"--set {override.partition('=')[0]}  steps" in str(caught.value)
    assert "name: " not in str(caught.value)


def test_a_file_whose_name_cannot_be_a_recipes_needs_a_name(tmp_path: Path, registry: Registry):
    path = tmp_path / "my recipe.yaml"
    path.write_text(SHORT)
    with pytest.raises(RecipeError, match=r"my recipe\.yaml:1  name: is missing, and the file's 'my recipe' has more"):
        compile_plan(load_recipe(path), registry)
    path.write_text(SHORT + "\nname: mine_1.2-b")
    assert compile_plan(load_recipe(path), registry).recipe.name == "mine_1.2-b"


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_a_recipe_that_is_no_mapping_is_refused(compiled: Compile, text: str):
    with pytest.raises(RecipeError, match=r"x\.yaml:1  expected a mapping with model, task and steps, got "):
        compiled(text)


def test_a_model_directory_is_taken_as_it_is(compiled: Compile, tmp_path: Path):
    assert compiled(model=str(tmp_path)).recipe.model == str(tmp_path)


def test_a_recipe_that_needs_a_failed_plugin_ends_as_that_plugins_fault(registry: Registry, tmp_path: Path):
    registry._failures.append(PluginFailure("obs", Provider("x", "1", "obs"), "ImportError: y"))
    path = tmp_path / "x.yaml"
    path.write_text(GOOD.replace("method: toy", "method: obs"))
    with pytest.raises(PluginError, match=r"method 'obs' is not available: plugin 'obs' of x 1 \(obs\) failed to load"):
        compile_plan(load_recipe(path), registry)


@pytest.mark.parametrize(
    ("text", "remarks"),
    [
        (GOOD.replace("macs: 0.5", "sparsity: 0.5"), ["steps.0.prune: toy zeroes single weights"]),
        (GOOD.replace(", gates: {latency: 0.8}", ""), ["steps.2.verify: no gates"]),
        (GOOD[: GOOD.index("  - verify")], ["no verify step: no latency or accuracy will be measured"]),
    ],
)
def test_a_plan_says_what_it_will_not_show(compiled: Compile, text: str, remarks: list[str]):
    found = compiled(text).lints
    assert len(found) == len(remarks)
    assert all(lint.startswith(remark) for lint, remark in zip(found, remarks, strict=True))
