"""What a sweep does with a cluster, on a stand-in for Ray that does every task at once: which node does what, and when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from compressor.cli import main
from compressor.errors import SetupError
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.sweep import compile_sweep
from compressor.run.pipeline import Conditions, Finished
from compressor.run.sweep import run_sweep
from tests.toys import toy_recipe

Change = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


@dataclass(frozen=True, eq=False)
class Reference:
    """What a task gave."""

    found: Any


class Ray:
    """Two nodes, and one without CPUs. A task is done when it is sent; what it gives is told when it is asked for."""

    def __init__(self, change: Change = lambda _, order: order) -> None:
        self.change = change
        self.sent: list[tuple[str, str, float]] = []
        self.asked: dict[str, Any] = {}
        self.connected = False

    def init(self, **options: Any) -> None:
        self.asked = options
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": name, "NodeManagerHostname": name, "Alive": alive, "Resources": {"CPU": cpus}}
            for name, cpus, alive in (("head", 0.0, True), ("one", 4.0, True), ("two", 2.0, True), ("off", 8.0, False))
        ]

    def remote(self, *, scheduling_strategy: Any, num_cpus: float, **_: Any) -> Any:
        node = scheduling_strategy.node_id

        def submit(function: Any) -> Any:
            def sent(order: Mapping[str, Any]) -> Any:
                if "job" in order:
                    self.sent.append((node, order["job"].name, num_cpus))
                try:
                    found: Any = function(self.change(node, order))
                except RayError as error:
                    found = error
                return Reference(found)

            return SimpleNamespace(remote=sent)

        return submit

    def wait(self, refs: list[Any], *, num_returns: int) -> tuple[list[Any], list[Any]]:
        return refs[-num_returns:], refs[:-num_returns]

    def get(self, ref: Any) -> Any:
        if isinstance(ref.found, Exception):
            raise ref.found
        return ref.found


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ray]:
    def made(change: Change = lambda _, order: order) -> Ray:
        ray = Ray(change)
        strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=SimpleNamespace)
        errors = SimpleNamespace(
            RayError=RayError,
            RayTaskError=RayTaskError,
            WorkerCrashedError=WorkerCrashedError,
            OutOfMemoryError=OutOfMemoryError,
        )
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
        monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
        return ray

    return made


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return toy_recipe(tmp_path, steps=[{"prune": {"method": "fisher", "target": {"macs": [0.6, 0.3]}}}])


def swept(recipe: Path, out: Path, *over: str, **options: Any) -> tuple[Finished, list[str]]:
    registry = Registry.load()
    said: list[str] = []
    plan = compile_sweep(load_recipe(recipe), registry, over=over)
    return run_sweep(plan, out, Conditions(registry, torch.device("cpu"), said.append), **options), said


def test_every_node_does_one_job_at_a_time_with_all_its_cpus(
    connect: Callable[..., Ray], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ray = connect()
    result, said = swept(recipe, tmp_path / "ray", "steps.0.prune.method=fisher,obs", ray="there:6379")
    assert (ray.asked["address"], ray.connected) == ("there:6379", False)
    assert ray.asked["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
    assert {cpus for node, _, cpus in ray.sent if node == "one"} == {4.0}
    names = [name for _, name, _ in ray.sent]
    assert {node for node, _, _ in ray.sent} == {"one", "two"}
    for number, method in enumerate(("fisher", "obs"), 1):
        for macs in (0.6, 0.3):
            assert names.index(f"family-{number}") < names.index(f"{method}_macs-{macs}")
    assert not any(line.startswith("note: some of them share a machine") for line in said)
    expected, _ = swept(recipe, tmp_path / "here", "steps.0.prune.method=fisher,obs")
    assert result.report["rows"] == expected.report["rows"]
    for row in result.report["rows"][1:]:
        one, other = (tmp_path / place / row["name"] / "model.safetensors" for place in ("ray", "here"))
        assert one.read_bytes() == other.read_bytes()


def test_what_a_lost_node_was_doing_is_done_elsewhere(connect: Callable[..., Ray], recipe: Path, tmp_path: Path):
    def lose(node: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if node == "one" and "job" in order:
            raise RayError("the node died")
        return order

    ray = connect(lose)
    result, said = swept(recipe, tmp_path / "ray", ray="auto")
    assert [row["name"] for row in result.report["rows"]] == ["dense", "macs-0.6", "macs-0.3"]
    assert ray.sent[0] == ("one", "family-1", 4.0)
    assert {node for node, _, _ in ray.sent[1:]} == {"two"}
    assert any(line.startswith("one went away during pruning for macs-0.6, macs-0.3") for line in said)


@pytest.mark.parametrize("kind", [WorkerCrashedError, OutOfMemoryError])
def test_a_job_that_takes_its_workers_down_fails_and_the_nodes_stay(
    kind: type[RayError], connect: Callable[..., Ray], recipe: Path, tmp_path: Path
):
    def crash(_: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if "job" in order and order["job"].name == "macs-0.6":
            raise kind("the worker died")
        return order

    ray = connect(crash)
    result, said = swept(recipe, tmp_path / "ray", ray="auto")
    assert [name for _, name, _ in ray.sent].count("macs-0.6") == 2
    errors = {row["name"]: row["error"]["exit_code"] for row in result.report["rows"] if row.get("error")}
    assert errors == {"macs-0.6": 3}
    assert "macs-0.6 is done" not in said
    assert (tmp_path / "ray" / "macs-0.3" / "model.safetensors").exists()


def test_a_pruning_that_takes_its_workers_down_fails_for_its_points_alone(
    connect: Callable[..., Ray], recipe: Path, tmp_path: Path
):
    def crash(_: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if "job" in order and order["job"].name == "family-1":
            raise OutOfMemoryError("the worker was killed")
        return order

    connect(crash)
    result, _ = swept(recipe, tmp_path / "ray", "steps.0.prune.method=obs,fisher", ray="auto")
    failed = [row["name"] for row in result.report["rows"] if row.get("error")]
    assert failed == ["obs_macs-0.6", "obs_macs-0.3"]


def test_a_point_that_fails_on_a_node_is_listed(connect: Callable[..., Ray], recipe: Path, tmp_path: Path):
    connect()
    steps = ",".join(f"{{method: drop-layers, target: {{layers: {layers}}}}}" for layers in (0.7, 0.1))
    result, _ = swept(recipe, tmp_path / "ray", f"steps.0.prune={steps}", ray="auto")
    good, failed = result.report["rows"][1:]
    assert (good["name"], good.get("error")) == ("prune-drop-layers-target-layers-0.7", None)
    assert (failed["name"], failed["error"]["exit_code"]) == ("prune-drop-layers-target-layers-0.1", 2)
    assert "keeps no layer" in failed["error"]["message"]


@pytest.mark.parametrize("nodes", [None, []], ids=["no cluster", "no node"])
def test_what_was_published_is_where_it_was_when_no_cluster_answers(
    nodes: Any, connect: Callable[..., Ray], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps = ",".join(f"{{method: drop-layers, target: {{layers: {layers}}}}}" for layers in (0.7, 0.1))
    over, out = f"steps.0.prune={steps}", tmp_path / "family"
    swept(recipe, out, over)
    before = (out / "sweep.json").read_bytes()
    connect()
    monkeypatch.setattr(Ray, "nodes", lambda _: nodes)
    if nodes is None:
        monkeypatch.setattr(Ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("nobody there")))
    with pytest.raises(SetupError, match=r"no Ray cluster answers|no node of the cluster"):
        swept(recipe, out, over, ray="mistyped:6379")
    assert (out / "sweep.json").read_bytes() == before
    assert [path.name for path in tmp_path.glob("family*")] == ["family"]


CANNOT: dict[str, tuple[Change, str]] = {
    "directory": (
        lambda node, order: {**order, "file": "/nowhere/seen"} if node == "two" else order,
        "node two: does not see .*ray.partial-.*filesystem that all nodes see",
    ),
    "start": (
        lambda node, order: {**order, "directory": "/nowhere"} if node == "two" else order,
        "node two: does not see /nowhere",
    ),
    "versions": (
        lambda node, order: {**order, "versions": {"torch": "0.1"}} if node == "two" else order,
        r"node two: has other versions: torch .* for 0\.1.*install the same",
    ),
    "plugins": (
        lambda _, order: {**order, "digest": "other"} if "job" in order else order,
        "node one: the recipe is another sweep there",
    ),
}


@pytest.mark.parametrize("what", CANNOT)
def test_a_node_that_cannot_work_is_named(what: str, connect: Callable[..., Ray], recipe: Path, tmp_path: Path):
    change, message = CANNOT[what]
    connect(change)
    with pytest.raises(SetupError, match=f"(?s){message}"):
        swept(recipe, tmp_path / "ray", ray="auto")
    assert not (tmp_path / "ray").exists()


def test_a_node_that_is_gone_already_and_a_cluster_without_nodes_are_errors(
    connect: Callable[..., Ray], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lose(node: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RayError(f"{node} died before {len(order)} entries were read")

    connect(lose)
    with pytest.raises(SetupError, match="node one does not work: one died before"):
        swept(recipe, tmp_path / "ray", ray="auto")
    monkeypatch.setattr(Ray, "nodes", lambda _: [])
    with pytest.raises(SetupError, match="no node of the cluster has a CPU"):
        swept(recipe, tmp_path / "ray", ray="auto")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "--ray needs the package ray, which is not installed\n  next: pip install 'compressor-onnx[ray]'"),
        (
            SimpleNamespace(init=lambda **_: (_ for _ in ()).throw(ConnectionError("nobody there"))),
            "--ray auto: no Ray cluster answers: nobody there\n  next: start one with: ray start --head",
        ),
    ],
    ids=["not installed", "no cluster"],
)
def test_without_ray_or_a_cluster_the_command_ends_with_3(
    module: Any, message: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.chdir(recipe.parent)
    result = CliRunner().invoke(main, ["sweep", "recipe.yaml", "--ray", "auto", "--device", "cpu"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in result.stderr
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
