"""A lock file against the present: what is named, and what refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError, SetupError
from compressor.recipe.lock import Lock
from compressor.recipe.replay import check_locked, unreproduced

FACTS: dict[str, Any] = {
    "digest": "aa",
    "source": "recipe.yaml",
    "overrides": [],
    "recipe": {
        "name": "toy",
        "model": "owner/model",
        "revision": None,
        "task": {"name": "glue", "path": "data", "dataset": {"revision": None}, "max_length": 128},
        "seed": 0,
        "steps": [{"prune": {"method": "obs", "damping": 0.5}}, {"export": {"opset": 20}}],
    },
    "providers": {"method:obs": "plugins 1.0 (obs)"},
    "environment": {"python": "3.11.9", "platform": "Linux x86_64", "packages": {"torch": "2.13.0"}},
    "hardware": {"device": "cpu", "cpu": "Zen 4", "cpu_features": ["avx2"], "threads": 1},
    "inputs": {
        "model_revision": None,
        "weights_sha256": "w",
        "config_sha256": "c",
        "calibration": {"rows": 3, "sha256": "r", "ids": [2, 5, 11], "row_sha256": "a1 b2 c3"},
        "validation_sha256": "v",
        "dataset_revision": "0123abc",
    },
}
LOCK = Lock(Path("out/recipe.lock.yaml"), FACTS, {"model.onnx": "m", "model.safetensors": "s"})


def changed(**values: Any) -> dict[str, Any]:
    """Return the facts with values replaced, each by a path with two underscores for a dot."""
    facts = copy.deepcopy(FACTS)
    for path, value in values.items():
        *way, last = (int(part) if part.isdecimal() else part for part in path.split("__"))
        here: Any = facts
        for part in way:
            here = here[part]
        here[last] = value
    return facts


CALIBRATION = FACTS["inputs"]["calibration"]
REFUSED = [
    ({"recipe__seed": 1}, InputError, "recipe.seed: locked 0, present 1"),
    ({"recipe__steps__0__prune__damping": 0.25}, InputError, "recipe.steps.0.prune.damping: locked 0.5, present 0.25"),
    (
        {"recipe__steps": FACTS["recipe"]["steps"][:1]},
        InputError,
        "recipe.steps.1.export.opset: locked 20, present nothing",
    ),
    ({"recipe__task__max_length": 64}, InputError, "recipe.task.max_length: locked 128, present 64"),
    ({"recipe__task__path": "/no/such/place"}, InputError, "recipe.task.path: locked data, present /no/such/place"),
    ({"inputs__weights_sha256": "x"}, InputError, "inputs.weights_sha256: locked w, present x"),
    ({"inputs__config_sha256": "x"}, InputError, "inputs.config_sha256: locked c, present x"),
    ({"inputs__validation_sha256": "x"}, InputError, "inputs.validation_sha256: locked v, present x"),
    (
        {"inputs__calibration": {**CALIBRATION, "sha256": "x", "row_sha256": "a1 b9 c3"}},
        InputError,
        "inputs.calibration: rows 5 of the train split: locked b2, present b9",
    ),
    (
        {"inputs__calibration": {**CALIBRATION, "sha256": "x", "ids": [2, 5, 12]}},
        InputError,
        "inputs.calibration.ids: locked also rows 11, present also rows 12",
    ),
    (
        {"inputs__calibration": {**CALIBRATION, "sha256": "x"}},
        InputError,
        "inputs.calibration.sha256: locked r, present x",
    ),
    ({"digest": "bb"}, InputError, "digest: locked aa, present bb"),
    (
        {"providers__method:obs": "plugins 1.1 (obs)"},
        SetupError,
        "providers.method:obs: locked plugins 1.0 (obs), present plugins 1.1 (obs)",
    ),
    (
        {"environment__packages": {"torch": "2.14.0"}},
        SetupError,
        "environment.packages.torch: locked 2.13.0, present 2.14.0",
    ),
    ({"environment__packages": {}}, SetupError, "environment.packages.torch: locked 2.13.0, present nothing"),
    ({"environment__python": "3.12.0"}, SetupError, "environment.python: locked 3.11.9, present 3.12.0"),
    ({"hardware__device": "cuda"}, SetupError, "hardware.device: locked cpu, present cuda"),
]


@pytest.mark.parametrize(("values", "error", "line"), REFUSED, ids=[line for _, _, line in REFUSED])
def test_what_decides_the_bytes_refuses_and_is_named(values: dict[str, Any], error: type[InputError], line: str):
    with pytest.raises(error) as raised:
        check_locked(LOCK, changed(**values))
    head, *lines = raised.value.message.splitlines()
    assert head == "out/recipe.lock.yaml: 1 thing is not as locked:"
    assert lines == [f"  {line}"]
    assert raised.value.hint


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"recipe__model": "elsewhere"}, "recipe.model: locked owner/model, present elsewhere"),
        (
            {"recipe__task__path": str(Path(__file__).parent)},
            f"recipe.task.path: locked data, present {Path(__file__).parent}",
        ),
        (
            {"recipe__task__dataset__revision": "0123abc"},
            "recipe.task.dataset.revision: locked null, present 0123abc",
        ),
        ({"inputs__dataset_revision": "4567def"}, "inputs.dataset_revision: locked 0123abc, present 4567def"),
        ({"environment__python": "3.11.4"}, "environment.python: locked 3.11.9, present 3.11.4"),
        ({"hardware__cpu": "Zen 5"}, "hardware.cpu: locked Zen 4, present Zen 5"),
        ({"hardware__cpu_features": []}, 'hardware.cpu_features: locked ["avx2"], present []'),
        ({"hardware__threads": 2}, "hardware.threads: locked 1, present 2"),
    ],
)
def test_where_things_are_and_what_rounds_is_only_said(values: dict[str, Any], line: str):
    assert [str(one) for one in check_locked(LOCK, changed(digest="bb" if "recipe" in line else "aa", **values))] == [
        line
    ]


def test_a_file_that_an_option_names_may_lie_elsewhere_and_no_other_option_may():
    one, two = "/there/words.txt", "/there/keep.txt"
    lock = Lock(
        LOCK.path, changed(recipe__steps__0__prune__corpus=["words.txt"], recipe__steps__0__prune__keep="k"), {}
    )
    values = {"digest": "bb", "recipe__steps__0__prune__corpus": [one], "recipe__steps__0__prune__keep": two}
    found = check_locked(lock, changed(**values), files=[one, two])
    assert [one.what for one in found] == ["recipe.steps.0.prune.corpus", "recipe.steps.0.prune.keep"]
    for files in ([one], [two], []):
        with pytest.raises(InputError):
            check_locked(lock, changed(**values), files=files)
    for more in ([one, two], [], one):
        with pytest.raises(InputError, match=r"prune\.corpus: locked \[\"words.txt\"\]"):
            check_locked(lock, changed(**values | {"recipe__steps__0__prune__corpus": more}), files=[one, two])


def test_names_files_and_revisions_are_not_compared():
    values = {"source": "x", "overrides": ["a=b"], "recipe__name": "y", "inputs__model_revision": "z"}
    assert check_locked(LOCK, changed(**values)) == []


def test_all_differences_are_named_at_once():
    values = {"recipe__seed": 1, "environment__packages": {"torch": "1"}, "hardware__cpu": "Zen 5"}
    with pytest.raises(InputError) as raised:
        check_locked(LOCK, changed(**values))
    assert raised.value.message.splitlines() == [
        "out/recipe.lock.yaml: 2 things are not as locked:",
        "  recipe.seed: locked 0, present 1",
        "  environment.packages.torch: locked 2.13.0, present 1",
        "  hardware.cpu: locked Zen 4, present Zen 5 (does not refuse by itself)",
    ]


def test_many_rows_are_not_all_named():
    rows = {"rows": 3, "sha256": "x", "ids": list(range(100, 130)), "row_sha256": "a " * 30}
    with pytest.raises(InputError, match=r"locked also rows 2, 5, 11, present also rows 100, .*, 107 and 22 more"):
        check_locked(LOCK, changed(inputs__calibration=rows))


def test_files_are_compared_byte_for_byte():
    assert unreproduced(LOCK, {"model.safetensors": "s", "model.onnx": "m"}) == []
    found = unreproduced(LOCK, {"model.onnx": "x", "more.onnx": "y"})
    assert [str(one) for one in found] == [
        "model.onnx: locked m, present x",
        "model.safetensors: locked s, present nothing",
        "more.onnx: locked nothing, present y",
    ]
