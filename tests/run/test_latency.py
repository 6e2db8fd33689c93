"""Which table a run gets: measured once, kept, and never one of another machine, version or shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from compressor.errors import RecipeError, SetupError
from compressor.model import surgery
from compressor.model.latency_table import LatencyTable, Workload
from compressor.model.masks import Masks
from compressor.plugin import Registry
from compressor.plugin.components import Exporter, ModelFamily
from compressor.plugin.target import Target
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import latency
from compressor.run.latency import Request, cache_directory, exporter_of, latency_table
from compressor.run.load import families, open_session
from compressor.run.preflight import check_lengths, check_runtime
from compressor.testing import tiny_model
from compressor.verify.rounds import Protocol
from tests.model.test_latency_table import table
from tests.toys import toy_recipe

REGISTRY = Registry.load()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """Every measurement that was made; the tables are made up, no two alike."""
    made: list[Workload] = []

    def measure(_: object, workload: Workload, __: object) -> LatencyTable:
        made.append(workload)
        return table(workload=workload, control=float(len(made)))

    monkeypatch.setattr(latency, "profile", measure)
    return made


def exporter(**options: Any) -> Exporter:
    return cast("type[Exporter]", REGISTRY.get("exporter", "onnx"))(**options)


def family(model_type: str = "bert") -> ModelFamily:
    return families(REGISTRY)[model_type]


def request_of(workload: Workload | None = None, **shape: Any) -> Request:
    return Request(tiny_model(**shape), family(), exporter(), workload or Workload(batch=1, sequence=16))


def test_a_table_is_measured_once_and_then_read(measurements: list[Workload], tmp_path: Path):
    first, second = (latency_table(request_of()) for _ in range(2))
    assert (first.measured, second.measured, len(measurements)) == (True, False, 1)
    assert first.table == second.table
    assert first.path == second.path == tmp_path / "cache" / "compressor" / "latency" / request_of().file_name


def test_fresh_measures_again_and_replaces_what_was_kept(measurements: list[Workload]):
    latency_table(request_of())
    again = latency_table(request_of(), fresh=True)
    assert len(measurements) == 2
    assert latency_table(request_of()).table == again.table


def test_weights_words_and_an_earlier_pruning_do_not_matter():
    model = tiny_model()
    keep = {group.name: torch.arange(group.units) < 1 for group in family().groups(model)}
    pruned = surgery.shrink(model, family(), Masks(keep))
    keys = [
        Request(one, family(), exporter(), Workload(batch=1, sequence=16)).key
        for one in (model, pruned, tiny_model(seed=1), tiny_model(vocab_size=99))
    ]
    assert all(key == keys[0] for key in keys)


def test_a_model_that_lost_a_layer_is_a_model_of_fewer_layers():
    shallow = surgery.shrink(tiny_model(num_hidden_layers=3), family(), Masks({}), dropped_layers=(0,))
    other = Request(shallow, family(), exporter(), Workload(batch=1, sequence=16))
    assert other.key == request_of(num_hidden_layers=2).key


@pytest.mark.parametrize(
    "other",
    [
        request_of(Workload(batch=2, sequence=16)),
        request_of(Workload(batch=1, sequence=17)),
        request_of(Workload(batch=1, sequence=16, threads=2)),
        request_of(Workload(batch=1, sequence=16, provider="cuda")),
        request_of(num_attention_heads=2),
        request_of(hidden_size=64),
        request_of(num_hidden_layers=2),
        request_of(intermediate_size=64),
        request_of(hidden_act="relu"),
        request_of(num_labels=None),
        request_of(num_labels=3),
        request_of(attention="eager"),
        Request(tiny_model(), family(), exporter(opset=18), Workload(batch=1, sequence=16)),
        Request(tiny_model(), family(), exporter(), Workload(batch=1, sequence=16), Protocol(rounds=3, untuned=False)),
        Request(tiny_model("roberta"), family(), exporter(), Workload(batch=1, sequence=16)),
    ],
)
def test_another_shape_model_or_exporter_has_another_key(other: Request):
    assert other.file_name != request_of().file_name


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("hardware", lambda _: {"cpu": "another"}),
        ("installed_flavours", lambda: ["onnxruntime 0.0.1"]),
        ("installed_flavours", lambda: ["onnxruntime-gpu 1.31.1"]),
        ("versions", lambda: {"torch": "0"}),
        ("VERSION", 0),
    ],
)
def test_another_machine_or_version_has_another_key(name: str, replacement: object, monkeypatch: pytest.MonkeyPatch):
    before = request_of().file_name
    monkeypatch.setattr(latency, name, replacement)
    assert request_of().file_name != before


def damage_text(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def damage_key(path: Path) -> None:
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "key": {**entry["key"], "dtype": "float16"}}))


def damage_table(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "table": {"layers": 1}}))


def damage_kind(path: Path) -> None:
    path.write_text("[1]")


def damage_encoding(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("damage", [damage_text, damage_key, damage_table, damage_kind, damage_encoding])
def test_a_damaged_file_is_measured_again_and_replaced(
    damage: Callable[[Path], None], measurements: list[Workload], caplog: pytest.LogCaptureFixture
):
    path = latency_table(request_of()).path
    damage(path)
    assert latency_table(request_of()).measured
    assert "is measured again" in caplog.text
    assert not latency_table(request_of()).measured
    assert len(measurements) == 2


def test_a_run_keeps_its_table_and_prefers_it_to_the_cache(measurements: list[Workload], tmp_path: Path):
    run_dir = tmp_path / "run"
    first = latency_table(request_of(), run_dir=run_dir)
    latency_table(request_of(), fresh=True)  # someone replaces the cached one meanwhile
    resumed = latency_table(request_of(), run_dir=run_dir)
    assert resumed.table == first.table
    assert resumed.path == run_dir / "latency" / request_of().file_name
    assert len(measurements) == 2


def test_a_run_keeps_what_it_took_from_the_cache(measurements: list[Workload], tmp_path: Path):
    cached = latency_table(request_of())
    assert latency_table(request_of(), run_dir=tmp_path / "run").table == cached.table
    cached.path.unlink()
    assert latency_table(request_of(), run_dir=tmp_path / "run").table == cached.table
    assert len(measurements) == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    measurements: list[Workload], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "cache").write_text("a file")
    assert latency_table(request_of()).measured
    assert "cannot be kept" in caplog.text
    assert len(measurements) == 1


def test_the_cache_is_below_home_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "compressor" / "latency"


def test_a_missing_provider_is_an_error_before_any_export(monkeypatch: pytest.MonkeyPatch):
    def missing(_: str) -> None:
        raise SetupError("no CUDA")

    monkeypatch.setattr(latency, "require_provider", missing)
    with pytest.raises(SetupError, match="no CUDA"):
        latency_table(request_of(Workload(batch=1, sequence=16, provider="cuda")))


def plan_of(directory: Path, target: Mapping[str, Any], *, export: bool = True) -> Any:
    steps: list[dict[str, Any]] = [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}]
    recipe = toy_recipe(directory, steps=[*steps, *([{"export": {"opset": 18}}] if export else [])])
    plan = compile_plan(load_recipe(recipe), REGISTRY)
    object.__setattr__(plan.steps[0].component, "target", Target(**target))  # whatever the method takes today
    return plan


def test_a_session_measures_its_teacher_with_the_exporter_of_the_plan(measurements: list[Workload], tmp_path: Path):
    plan = plan_of(tmp_path, {"macs": 0.5})
    session = open_session(plan, REGISTRY, tmp_path / "run", torch.device("cpu"))
    found = session.latency_table(batch=2, sequence=16, threads=3)
    assert found.workload == measurements[0] == Workload(batch=2, sequence=16, threads=3, provider="cpu")
    (path,) = (tmp_path / "run" / "latency").glob("*.json")
    assert json.loads(path.read_text())["key"]["exporter"]["opset"] == 18
    assert session.latency_table(batch=2, sequence=16, threads=3) == found
    assert len(measurements) == 1


def test_a_plan_without_an_export_gets_the_exporter_that_recipes_get(tmp_path: Path):
    assert exporter_of(plan_of(tmp_path, {"macs": 0.5}, export=False)) == exporter()


@pytest.mark.parametrize("amount", ["latency", "latency_ms"])
def test_a_latency_target_needs_its_provider_before_anything_runs(
    amount: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    monkeypatch.setattr("compressor.run.preflight.require_provider", asked.append)
    check_runtime(plan_of(tmp_path, {amount: 0.5, "provider": "cuda"}))
    check_runtime(plan_of(tmp_path, {"macs": 0.5, "provider": "tensorrt"}))
    assert asked == ["cuda"]


def test_a_latency_target_beyond_the_positions_is_an_error_in_the_recipe(tmp_path: Path):
    plan = plan_of(tmp_path, {"latency": 0.5, "sequence": 160.5})
    with pytest.raises(RecipeError, match=r"steps\.0\.prune\.target\.sequence: expected at most 160 .* got 161"):
        check_lengths(plan, 160)
    check_lengths(plan_of(tmp_path, {"latency": 0.5, "sequence": 160}), 160)
    check_lengths(plan_of(tmp_path, {"macs": 0.5, "sequence": 999}), 160)


def test_a_latency_target_says_what_it_is_measured_with():
    target = Target(latency=0.6, threads=4, provider="cuda")
    assert repr(target) == "Target(latency=0.6, provider='cuda', threads=4)"
    assert (Target(macs=0.5).threads, Target(macs=0.5).provider, Target(macs=0.5).of_latency) == (1, "cpu", False)
