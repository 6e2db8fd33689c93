"""A lock file is replayed: the same bytes, or what differs."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset

from compressor.errors import CompressorError, InputError, SetupError
from compressor.plugin import Registry
from compressor.plugin.provider import Provider
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import read_lock
from compressor.recipe.plan import compile_plan
from compressor.run import facts
from compressor.run.again import read_run
from compressor.run.pipeline import Conditions, Finished, run
from compressor.testing import tiny_checkpoint
from compressor_plugins.tasks import _hub
from tests import lookup
from tests.toys import toy_recipe, write_rows

STEPS = [
    {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
    {"export": "lookup"},
    {"verify": {"rounds": 3, "gates": {"macs": 0.5}}},
]


@pytest.fixture(scope="module", autouse=True)
def _hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        lookup.hurry(patch)
        yield


def registry(version: str = "1.0") -> Registry:
    found = Registry.load()
    found.register(lookup, "lookup", provider=Provider("lookup-exporter", version, "tests.lookup"))
    return found


@dataclass(frozen=True)
class Place:
    """A finished run, and what it read."""

    directory: Path

    @property
    def lock(self) -> Path:
        return self.directory / "out" / "recipe.lock.yaml"

    def replay(self, name: str, *overrides: str, version: str = "1.0", **conditions: Any) -> Finished:
        known = registry(version)
        plan = compile_plan(load_recipe(self.lock, overrides=overrides), known)
        told = Conditions(known, torch.device("cpu"), locked=read_lock(self.lock), **conditions)
        return run(plan, self.directory / name, told)


def finished(place: Path, **changes: Any) -> Place:
    known = registry()
    plan = compile_plan(load_recipe(toy_recipe(place, **{"steps": STEPS, **changes})), known)
    run(plan, place / "out", Conditions(known, torch.device("cpu")))
    return Place(place)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished(tmp_path_factory.mktemp("replay"))


@pytest.fixture
def place(made: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The run, in the one place that its recipe names; what a test changes there is put back."""
    kept = shutil.copytree(made.directory, made.directory.with_name("kept"), dirs_exist_ok=True)
    monkeypatch.chdir(made.directory)
    yield made
    shutil.rmtree(made.directory)
    shutil.move(kept, made.directory)


def test_the_lock_file_pins_everything(place: Place):
    lock = yaml.safe_load(place.lock.read_text())
    inputs, environment = lock["inputs"], lock["environment"]
    weights = (place.directory / "checkpoint" / "model.safetensors").read_bytes()
    assert inputs["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert {"config_sha256", "validation_sha256"} <= inputs.keys()
    rows = inputs["calibration"]
    assert rows["rows"] == len(rows["ids"]) == len(rows["row_sha256"].split()) == 32
    assert rows["ids"] == sorted(set(rows["ids"]))
    assert max(rows["ids"]) < 48
    assert {"torch", "transformers", "compressor-onnx"} <= environment["packages"].keys()
    assert {"device", "cpu", "cpu_features", "threads"} <= lock["hardware"].keys()
    assert lock["providers"]["exporter:lookup"] == "lookup-exporter 1.0 (tests.lookup)"
    for name in ("model.onnx", "model.safetensors"):
        made = (place.directory / "out" / name).read_bytes()
        assert lock["outputs"][name] == hashlib.sha256(made).hexdigest()


def test_replayed_twice_it_gives_the_same_bytes_and_says_so(place: Place):
    said: list[str] = []
    results = [place.replay(name, announce=said.append) for name in ("one", "two")]
    for result in results:
        assert result.reproduced
        assert result.report["replay"]["changed"] == {}
        for name in ("model.onnx", "model.safetensors", "config.json"):
            assert (result.directory / name).read_bytes() == (place.directory / "out" / name).read_bytes(), name
        again = yaml.safe_load((result.directory / "recipe.lock.yaml").read_text())
        first = yaml.safe_load(place.lock.read_text())
        assert {**again, "source": ""} == {**first, "source": ""}
    digest = results[0].report["replay"]["outputs"]["model.onnx"]
    assert said.count(f"reproduced model.onnx, byte for byte: sha256 {digest}") == 2


def change_weight(place: Path) -> None:
    tiny_checkpoint(place / "checkpoint", seed=1)


def change_row(place: Path, split: str = "train") -> None:
    path = place / f"{split}.csv"
    rows = list(csv.reader(path.open(newline="")))
    drawn = yaml.safe_load((place / "out" / "recipe.lock.yaml").read_text())["inputs"]["calibration"]["ids"][4]
    rows[1 + drawn][1] = str(1 - int(rows[1 + drawn][1]))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


CHANGES: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    (change_weight, (), r"inputs\.weights_sha256: locked \w{64}, present \w{64}"),
    (change_row, (), r"inputs\.calibration: rows \d+ of the train split: locked \w{8}, present \w{8}"),
    (lambda place: change_row(place, "validation"), (), r"inputs\.validation_sha256: locked \w{64}, present \w{64}"),
    (
        lambda _: None,
        ("steps.0.prune.target.macs=0.4",),
        r"recipe\.steps\.0\.prune\.target\.macs: locked 0\.5, present 0\.4",
    ),
]


@pytest.mark.parametrize(("change", "overrides", "line"), CHANGES, ids=["weight", "row", "validation", "option"])
def test_what_changed_is_named_alone_before_anything_runs(
    change: Callable[[Path], None], overrides: tuple[str, ...], line: str, place: Place
):
    change(place.directory)
    with pytest.raises(InputError, match=rf"lock\.yaml: 1 thing is not as locked:\n  {line}\n  next: "):
        place.replay("other", *overrides)
    assert not list(place.directory.glob("other*"))


def test_another_seed_is_named_with_the_rows_that_it_draws(place: Place):
    with pytest.raises(InputError) as raised:
        place.replay("other", "seed=1", "calibration.seed=1")
    named = [line.partition(":")[0].strip() for line in raised.value.message.splitlines()[1:]]
    assert named == ["recipe.calibration.seed", "recipe.seed", "inputs.calibration.ids"]


@pytest.mark.parametrize(
    ("version", "packages", "line"),
    [
        (
            "1.1",
            {},
            r"providers\.exporter:lookup: locked lookup-exporter 1\.0 \(\S+\), present lookup-exporter 1\.1 \(\S+\)",
        ),
        ("1.0", {"numpy": "0.1"}, r"environment\.packages\.numpy: locked [\d.]+, present 0\.1"),
    ],
    ids=["plugin", "library"],
)
def test_another_version_is_an_error_of_the_environment(
    version: str, packages: dict[str, str], line: str, place: Place, monkeypatch: pytest.MonkeyPatch
):
    known = facts.environment()
    monkeypatch.setattr(facts, "environment", lambda: {**known, "packages": {**known["packages"], **packages}})
    with pytest.raises(SetupError, match=rf"1 thing is not as locked:\n  {line}\n  next: ") as raised:
        place.replay("other", version=version)
    assert raised.value.exit_code == 3
    assert not list(place.directory.glob("other*"))


def test_a_moved_model_and_another_cpu_are_only_said(place: Place, monkeypatch: pytest.MonkeyPatch):
    shutil.move(place.directory / "checkpoint", place.directory / "moved")
    known = facts.environment()
    monkeypatch.setattr(facts, "environment", lambda: {**known, "cpu": "another"})
    (place.directory / "out" / "latency").mkdir()
    (place.directory / "out" / "latency" / "table.json").write_text("{}")
    said: list[str] = []
    result = place.replay("other", "model=./moved", announce=said.append)
    assert result.reproduced
    assert (result.directory / "latency" / "table.json").read_text() == "{}", "latency tables come with the lock file"
    notes = [line.partition(": ")[2] for line in said if line.startswith("note: ")]
    assert [note.partition(":")[0] for note in notes] == ["not as locked, which refuses no replay"] * 2
    assert [note.split(": ")[1] for note in notes] == ["recipe.model", "hardware.cpu"]


def test_other_bytes_are_not_called_reproduced(place: Place):
    lock = yaml.safe_load(place.lock.read_text())
    lock["outputs"]["model.onnx"] = "0" * 64
    place.lock.write_text(yaml.safe_dump(lock))
    said: list[str] = []
    result = place.replay("other", announce=said.append)
    assert result.passed
    assert not result.reproduced
    assert result.report["replay"]["changed"].keys() == {"model.onnx"}
    assert [line.partition(", present")[0] for line in said if "reproduced: " in line] == [
        f"NOT reproduced: model.onnx: sha256 locked {'0' * 64}"
    ]


def test_an_edited_recipe_in_a_lock_file_is_noticed(place: Place):
    place.lock.write_text(place.lock.read_text().replace("macs: 0.5", "macs: 0.6"))
    with pytest.raises(
        CompressorError, match=r"1 thing is not as locked:\n  digest: locked \w{64}, present \w{64}\n  next: "
    ):
        place.replay("other")


# --- a data set of the hub ---

COMMITS = ("a" * 40, "b" * 40)


@dataclass
class Hub:
    """A hub that has one data set, with other rows in every commit.

    Attributes:
        directory: of the rows.
        head: the commit that ``main`` is.
        online: whether it answers what a revision is; rows that were read before are in a cache.
    """

    directory: Path
    head: str = COMMITS[0]
    online: bool = True

    def info(self, path: str, *, revision: str | None, timeout: float) -> Any:
        del path, timeout
        if not self.online:
            raise ConnectionError
        return SimpleNamespace(sha=revision or self.head)

    def load(self, path: str, name: str | None, *, split: str, revision: str | None) -> Dataset:
        del path, name
        commit = revision or self.head
        rows = write_rows(self.directory / f"{commit}-{split}.csv", 48, seed=COMMITS.index(commit) * 2 + len(split))
        return Dataset.from_pandas(pd.read_csv(rows))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    monkeypatch.setattr(_hub.HfApi, "dataset_info", hub.info)
    monkeypatch.setattr(_hub, "load_dataset", hub.load)
    _hub.commit.cache_clear()
    yield hub
    _hub.commit.cache_clear()


def test_a_data_set_of_the_hub_is_replayed_at_its_commit_whatever_the_hub_has_by_now(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task = {"name": "text-classification", "dataset": "owner/rows", "max_length": 32}
    place = finished(tmp_path, task=task)
    first = yaml.safe_load(place.lock.read_text())
    assert first["inputs"]["dataset_revision"] == COMMITS[0]
    said: list[str] = []

    def notes() -> list[str]:
        return [line.split(": ")[2] for line in said if line.startswith("note: ")]

    hub.head = COMMITS[1]
    for name, hub.online in (("later", True), ("offline", False)):
        _hub.commit.cache_clear()
        result = place.replay(name, announce=said.append)
        assert result.reproduced
        assert {**yaml.safe_load((result.directory / "recipe.lock.yaml").read_text()), "source": ""} == {
            **first,
            "source": "",
        }
        assert notes() == []
    known = registry()
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "load", classmethod(lambda _: known))
        assert read_run(place.directory / "out")[0].task.pinned() == {"dataset_revision": COMMITS[0]}
    assert place.replay("named", f"task.dataset.revision={COMMITS[0]}", announce=said.append).reproduced
    assert notes() == ["recipe.task.dataset.revision"]
    with pytest.raises(InputError, match=r"inputs\.validation_sha256") as raised:
        place.replay("other", f"task.dataset.revision={COMMITS[1]}")
    assert "inputs.dataset_revision: locked aaaa" in raised.value.message
