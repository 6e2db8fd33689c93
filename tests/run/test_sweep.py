"""Sweeps of toy models: every point is what apply writes, and what is pruned once stays pruned."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from safetensors.torch import load_file

from compressor.errors import CompressorError, InputError, SetupError
from compressor.model.masks import Masks
from compressor.plugin import Pruned, PruningMethod, Registry, Target, hookimpl
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.recipe.sweep import compile_sweep
from compressor.run import agenda, fingerprints
from compressor.run.pipeline import Conditions, Finished, run
from compressor.run.sweep import run_sweep
from compressor.testing import tiny_checkpoint
from compressor.verify import environment
from tests import lookup
from tests.lookup import hurry
from tests.run.test_pipeline import files, with_plugin
from tests.toys import toy_recipe

MACS = "steps.0.prune.target.macs"
CPU = torch.device("cpu")


def fractions(session: Any, target: Target) -> Masks:
    """Return masks that keep the first units of every sublayer."""
    kept = target.macs or 1.0
    return Masks({group.name: torch.arange(group.units) < int(kept * group.units) for group in session.groups})


class Together(PruningMethod):
    """Prunes for all targets in one call, which the tests count."""

    name = "together"
    calls: ClassVar[list[list[float | None]]] = []
    target: Target

    def prune(self, session: Any) -> Pruned:
        Together.calls.append([self.target.macs])
        if self.target.macs == STOP["at"]:
            raise STOP["with"]
        return Pruned(fractions(session, self.target), metrics={"asked": self.target.macs})

    def prune_all(self, session: Any, targets: Sequence[Target]) -> Iterator[Pruned]:
        Together.calls.append([target.macs for target in targets])
        for target in targets:
            if target.macs == STOP["at"]:
                raise STOP["with"]
            yield Pruned(fractions(session, target), metrics={"asked": target.macs})


STOP: dict[str, Any] = {}
"""Where the method above stops, and with what."""


class Drawn(PruningMethod):
    """Keeps units by torch's own random numbers."""

    name = "drawn"
    target: Target

    def prune(self, session: Any) -> Pruned:
        (session.run_dir / "latency").mkdir(parents=True, exist_ok=True)
        (session.run_dir / "latency" / "table.json").write_text("{}")
        keep = {group.name: torch.rand(group.units) < (self.target.macs or 1.0) for group in session.groups}
        weights = {
            name: torch.rand_like(weight) for name, weight in session.model.named_parameters() if "query" in name
        }
        return Pruned(Masks(keep), weights=weights)


class Reads(Together):
    """Decides by the tokenizer and every train row, as ``vocabulary`` does."""

    name = "reads"

    @property
    def reads_texts(self) -> bool:
        return True


class Few(Together):
    """Gives one result, whatever it is asked for."""

    name = "few"

    def prune_all(self, session: Any, targets: Sequence[Target]) -> Iterator[Pruned]:
        yield Pruned(fractions(session, targets[0]))


class Stopping:
    """A plugin that provides the methods, and stops the run before the step of the given number."""

    def __init__(self, at: int = 0, also: Sequence[Any] = ()) -> None:
        self.at = at
        self.also = also
        self.steps: list[str] = []

    @hookimpl
    def compressor_components(self) -> Any:
        return [Together, Drawn, Few, Reads, *self.also]

    @hookimpl(wrapper=True)
    def compressor_run_step(self, step: Any) -> Any:
        self.steps.append(step.verb)
        if len(self.steps) == self.at:
            raise KeyboardInterrupt
        return (yield)


@pytest.fixture(autouse=True)
def _none_counted() -> None:
    Together.calls.clear()
    STOP.update({"at": None, "with": None})


def swept(recipe: Path, out: Path, *over: str, plugin: Any = None, **options: Any) -> Finished:
    registry = with_plugin(plugin or Stopping())
    said = options.pop("said", [])
    plan = compile_sweep(load_recipe(recipe), registry, over=over)
    return run_sweep(plan, out, Conditions(registry, CPU, said.append), **options)


def applied(recipe: Path, out: Path, *overrides: str, also: Sequence[Any] = ()) -> Path:
    registry = with_plugin(Stopping(also=also))
    plan = compile_plan(load_recipe(recipe, overrides=overrides), registry)
    return run(plan, out, Conditions(registry, CPU)).directory


def pruning(directory: Path, method: str = "together", **changes: Any) -> Path:
    """Write a recipe that only prunes, for three targets."""
    steps = [{"prune": {"method": method, "target": {"macs": [0.75, 0.5, 0.25]}}}]
    return toy_recipe(directory, **{"steps": steps, **changes})


def test_every_point_is_what_apply_writes(tmp_path: Path):
    recipe = toy_recipe(tmp_path)
    said: list[str] = []
    result = swept(recipe, tmp_path / "family", f"{MACS}=0.6,0.3", said=said)
    alone = applied(recipe, tmp_path / "alone", f"{MACS}=0.3")
    point, expected = (files(directory) for directory in (tmp_path / "family" / "macs-0.3", alone))
    assert point.keys() == expected.keys()
    measured = {"README.md", "report.html", "report.json", "ort_config.json", "recipe.lock.yaml", "logs/run.log"}
    for name in point.keys() - measured:
        if not name.endswith("stage.json"):
            assert point[name] == expected[name], name
    one, other = (yaml.safe_load(every["recipe.lock.yaml"]) for every in (point, expected))
    assert {key: one[key] for key in one if key != "environment"} == {
        key: other[key] for key in other if key != "environment"
    }
    found, report = (json.loads(every["report.json"]) for every in (point, expected))
    for part in ("recipe", "model", "quality", "gates", "lints"):
        assert found[part] == report[part]
    pruned, metrics = ({**each["steps"][0]["metrics"], "seconds": None} for each in (found, report))
    assert pruned == {**metrics, "shared_with": ["macs-0.6"]}
    assert [line for line in said if line.startswith("point")] == [
        f"point 1 of 2: {MACS} = 0.6",
        f"point 2 of 2: {MACS} = 0.3",
    ]
    assert {path.name for path in (tmp_path / "family").iterdir()} == {
        "macs-0.6",
        "macs-0.3",
        "sweep.json",
        "sweep.csv",
        "report.html",
        "README.md",
        "logs",
    }
    assert not list(tmp_path.glob("family.*"))
    assert not result.passed, "the gate macs: 0.5 fails at 0.6"
    written = json.loads((tmp_path / "family" / "sweep.json").read_text())
    assert written == result.report
    assert [one["name"] for one in written["rows"]] == ["dense", "macs-0.6", "macs-0.3"]
    assert [one["verdict"] for one in written["rows"]] == [None, "fail", "pass"]
    assert "| macs-0.3 |" in (tmp_path / "family" / "README.md").read_text()


def test_members_of_a_random_method_are_what_each_target_alone_gives(tmp_path: Path):
    recipe = pruning(tmp_path, "drawn")
    swept(recipe, tmp_path / "family")
    for macs in ("0.75", "0.5", "0.25"):
        point = files(tmp_path / "family" / f"macs-{macs}")
        alone = files(applied(recipe, tmp_path / macs, f"{MACS}={macs}"))
        assert point.keys() == alone.keys()
        assert "latency/table.json" in point
        for name in ("model.safetensors", "config.json", "stages/01-prune/masks.safetensors"):
            assert point[name] == alone[name], (macs, name)


def test_a_method_that_shares_is_called_once_for_all_targets(tmp_path: Path):
    result = swept(pruning(tmp_path), tmp_path / "family")
    assert Together.calls == [[0.75, 0.5, 0.25]]
    assert [one["name"] for one in result.report["rows"]] == ["dense", "macs-0.75", "macs-0.5", "macs-0.25"]
    report = json.loads((tmp_path / "family" / "macs-0.5" / "report.json").read_text())
    metrics = report["steps"][0]["metrics"]
    assert (metrics["asked"], metrics["shared_with"]) == (0.5, ["macs-0.75", "macs-0.25"])
    masks = load_file(tmp_path / "family" / "macs-0.5" / "stages" / "01-prune" / "masks.safetensors")
    assert {int(mask.sum()) * 2 == len(mask) for mask in masks.values()} == {True}


def test_a_sweep_killed_in_its_second_point_resumes_without_pruning_again(tmp_path: Path):
    recipe = pruning(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, tmp_path / "family", plugin=Stopping(at=2))
    assert not (tmp_path / "family").exists()
    said: list[str] = []
    second = Stopping()
    swept(recipe, tmp_path / "family", plugin=second, said=said)
    assert Together.calls == [[0.75, 0.5, 0.25]]
    assert second.steps == ["prune", "prune"]
    assert [line for line in said if line.startswith("point")] == [
        f"point 1 of 3: {MACS} = 0.75 was finished before",
        f"point 2 of 3: {MACS} = 0.5",
        f"point 3 of 3: {MACS} = 0.25",
    ]
    assert not list(tmp_path.glob("family.*"))


def test_a_sweep_killed_while_it_prunes_asks_for_what_is_missing(tmp_path: Path):
    recipe = pruning(tmp_path)
    STOP.update({"at": 0.25, "with": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, tmp_path / "family")
    STOP["at"] = None
    swept(recipe, tmp_path / "family")
    assert Together.calls == [[0.75, 0.5, 0.25], [0.25]]


def test_a_damaged_member_is_pruned_again(tmp_path: Path):
    recipe = pruning(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, tmp_path / "family", plugin=Stopping(at=1))
    (work,) = tmp_path.glob("family.partial-*")
    (work / "shared" / "macs-0.5" / "weights.safetensors").write_bytes(b"power was lost")
    swept(recipe, tmp_path / "family")
    assert Together.calls == [[0.75, 0.5, 0.25], [0.5]]


def test_other_weights_undo_kept_members_and_finished_points(tmp_path: Path):
    recipe = pruning(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, tmp_path / "family", plugin=Stopping(at=2))
    tiny_checkpoint(tmp_path / "checkpoint", seed=1)
    said: list[str] = []
    swept(recipe, tmp_path / "family", said=said)
    assert Together.calls == [[0.75, 0.5, 0.25]] * 2
    assert "macs-0.75 was finished before, with other inputs, and is done again" in said
    alone = applied(recipe, tmp_path / "alone", f"{MACS}=0.75")
    assert files(tmp_path / "family" / "macs-0.75")["model.safetensors"] == files(alone)["model.safetensors"]


def test_a_target_that_cannot_be_met_is_listed_and_stops_no_other_point(tmp_path: Path):
    recipe = pruning(tmp_path)
    STOP.update({"at": 0.5, "with": InputError("out of reach")})
    said: list[str] = []
    result = swept(recipe, tmp_path / "family", said=said)
    assert Together.calls == [[0.75, 0.5, 0.25], [0.5], [0.25]], "together, then those that are missing one by one"
    assert "macs-0.5 FAILED: out of reach" in said
    failed = result.report["rows"][-1]
    assert (failed["name"], failed["error"]) == (
        "macs-0.5",
        {"kind": "InputError", "message": "out of reach", "exit_code": 2},
    )
    assert not result.passed
    out = tmp_path / "family"
    assert {path.name for path in out.glob("macs-*")} == {"macs-0.75", "macs-0.25"}
    assert "macs-0.5 failed: out of reach." in (out / "README.md").read_text()
    assert "FAILED: 1 of 3 points could not be finished" in (out / "report.html").read_text()
    kept = (out / "macs-0.25" / "recipe.lock.yaml").stat().st_ino
    STOP["at"] = None
    again = swept(recipe, out, said=said)
    assert Together.calls[3:] == [[0.5]], "the same call tries what failed"
    assert [row["name"] for row in again.report["rows"]] == ["dense", "macs-0.75", "macs-0.5", "macs-0.25"]
    assert (out / "macs-0.25" / "recipe.lock.yaml").stat().st_ino == kept
    with pytest.raises(InputError, match="exists already"):
        swept(recipe, out)


def tree(directory: Path) -> dict[str, bytes]:
    """Return the files of a published sweep; its log tells of attempts as well."""
    return {name: found for name, found in files(directory).items() if name != "logs/run.log"}


@pytest.fixture
def one_failed(tmp_path: Path) -> tuple[Path, Path]:
    """Return a recipe and its published sweep, of which one point failed that would not fail again."""
    recipe, out = pruning(tmp_path), tmp_path / "family"
    STOP.update({"at": 0.5, "with": InputError("out of reach")})
    swept(recipe, out)
    STOP["at"] = None
    return recipe, out


def test_a_failed_point_is_not_tried_again_beside_points_of_other_versions(
    one_failed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    recipe, out = one_failed
    before, calls = tree(out), len(Together.calls)
    now = {**environment.versions(), "numpy": "99.0"}
    for module in (agenda, fingerprints):
        monkeypatch.setattr(module, "versions", lambda: now)
    with pytest.raises(
        InputError, match=r"macs-0.75, macs-0.25: made with other .*: numpy [\d.]+, now 99\.0;"
    ) as error:
        swept(recipe, out)
    assert "--fresh to replace all points" in error.value.hint
    assert (tree(out), len(Together.calls)) == (before, calls), "nothing that was published is done again or lost"
    assert not list(out.parent.glob("family.*"))
    result = swept(recipe, out, fresh=True)
    assert not any(row.get("error") for row in result.report["rows"])


def test_other_weights_undo_no_published_point(one_failed: tuple[Path, Path]):
    recipe, out = one_failed
    before = tree(out)
    tiny_checkpoint(recipe.parent / "checkpoint", seed=1)
    with pytest.raises(InputError, match=r"made with other inputs or versions than are here now; what was published"):
        swept(recipe, out)
    assert tree(out) == before


@pytest.mark.parametrize("error", [SetupError("no memory"), KeyboardInterrupt()], ids=repr)
def test_what_was_published_is_where_it_was_when_trying_again_ends(one_failed: tuple[Path, Path], error: BaseException):
    recipe, out = one_failed
    before = tree(out)
    STOP.update({"at": 0.5, "with": error})
    with pytest.raises(type(error)):
        swept(recipe, out)
    after = tree(out)
    assert {name: after[name] for name in before} == before
    STOP["at"] = None
    again = swept(recipe, out)
    assert not any(row.get("error") for row in again.report["rows"])
    assert not list(out.parent.glob("family.*"))


def test_a_sweep_that_was_killed_while_it_was_tried_again_undoes_no_published_point(one_failed: tuple[Path, Path]):
    recipe, out = one_failed
    before, plan = tree(out), compile_sweep(load_recipe(recipe), with_plugin(Stopping()))
    work = out.with_name(f"family.partial-{plan.digest[:12]}")
    out.rename(work)  # as a process leaves it that is killed where it cannot put it back
    weights = (recipe.parent / "checkpoint" / "model.safetensors").read_bytes()
    tiny_checkpoint(recipe.parent / "checkpoint", seed=1)
    with pytest.raises(InputError, match="what was published is not done again"):
        swept(recipe, out)
    assert tree(out) == before
    (recipe.parent / "checkpoint" / "model.safetensors").write_bytes(weights)
    out.rename(work)
    result = swept(recipe, out)
    assert not any(row.get("error") for row in result.report["rows"])


def test_a_plugin_that_fails_at_one_point_stops_no_other(tmp_path: Path):
    recipe = pruning(tmp_path, steps=[{"prune": {"method": "together", "target": {"macs": 0.5}}}])
    STOP.update({"at": 0.5, "with": RuntimeError("oops")})
    result = swept(recipe, tmp_path / "family", f"{MACS}=0.75,0.5", "seed=0,1")
    errors = {row["name"]: row["error"]["kind"] for row in result.report["rows"] if row.get("error")}
    assert errors == {"macs-0.5_seed-0": "PluginError", "macs-0.5_seed-1": "PluginError"}


def test_a_sweep_without_any_result_is_its_error(tmp_path: Path):
    recipe = pruning(tmp_path, steps=[{"prune": {"method": "together", "target": {"macs": 0.5}}}])
    STOP.update({"at": 0.5, "with": InputError("out of reach")})
    with pytest.raises(InputError, match="no point of the sweep could be finished: out of reach"):
        swept(recipe, tmp_path / "family", "seed=0,1")
    assert not list(tmp_path.glob("family*")), "refused before anything was done: nothing is left behind"


def test_what_all_points_lack_stops_the_sweep(tmp_path: Path):
    STOP.update({"at": 0.25, "with": SetupError("no memory")})
    with pytest.raises(SetupError, match="no memory"):
        swept(pruning(tmp_path), tmp_path / "family")
    (work,) = tmp_path.glob("family.partial-*")
    assert {path.name for path in (work / "shared").glob("macs-*")} == {"macs-0.75", "macs-0.5"}


def test_a_method_that_gives_too_few_results_is_named_and_asked_one_by_one(tmp_path: Path):
    said: list[str] = []
    result = swept(pruning(tmp_path, "few"), tmp_path / "family", said=said)
    (line,) = (line for line in said if "prune_all yielded 1 of 3 results" in line)
    assert "method 'few'" in line
    assert result.passed


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=repr)
def test_memory_that_runs_out_at_one_point_stops_no_other(tmp_path: Path, error: Exception):
    STOP.update({"at": 0.5, "with": error})
    result = swept(pruning(tmp_path), tmp_path / "family")
    (failed,) = (row for row in result.report["rows"] if row.get("error"))
    assert (failed["name"], failed["error"]["exit_code"]) == ("macs-0.5", 3)
    assert failed["error"]["message"].startswith("memory ran out")


def test_memory_that_runs_out_in_a_points_own_steps_stops_no_other(tmp_path: Path):
    class Greedy:
        @hookimpl
        def compressor_components(self) -> Any:
            return [Together, Drawn, Few]

        @hookimpl(wrapper=True)
        def compressor_run_step(self, session: Any) -> Any:
            found = yield
            if session.run_dir.name.startswith("macs-0.75"):
                torch.empty(2**55, dtype=torch.uint8)
            return found

    result = swept(pruning(tmp_path), tmp_path / "family", plugin=Greedy())
    failed = {row["name"]: row["error"]["message"] for row in result.report["rows"] if row.get("error")}
    assert list(failed) == ["macs-0.75"]
    assert "memory ran out: " in failed["macs-0.75"]


def test_a_disk_that_is_full_at_one_point_ends_the_sweep(tmp_path: Path):
    STOP.update({"at": 0.5, "with": OSError(errno.ENOSPC, "No space left on device")})
    with pytest.raises(SetupError, match="the disk is full"):
        swept(pruning(tmp_path), tmp_path / "family")


def test_combinations_prune_together_where_only_the_target_differs(tmp_path: Path):
    recipe = pruning(tmp_path, steps=[{"prune": {"method": "together", "target": {"macs": [0.75, 0.5]}}}])
    result = swept(recipe, tmp_path / "family", "steps.0.prune.method=together,drawn", "seed=0,1")
    assert Together.calls == [[0.75, 0.5], [0.75, 0.5]], "once for each seed"
    names = [f"{m}_seed-{s}_macs-{k}" for m in ("together", "drawn") for s in (0, 1) for k in (0.75, 0.5)]
    assert [row["name"] for row in result.report["rows"] if row["settings"]] == names
    method = "steps.0.prune.method"
    assert result.report["rows"][-1]["settings"] == {method: "drawn", "seed": 1, MACS: 0.5}
    alone = applied(recipe, tmp_path / "alone", f"{MACS}=0.5", f"{method}=drawn", "seed=1")
    point = tmp_path / "family" / "drawn_seed-1_macs-0.5"
    for name in ("model.safetensors", "stages/01-prune/masks.safetensors"):
        assert (point / name).read_bytes() == (alone / name).read_bytes()


def test_a_point_that_reads_more_rows_than_the_others_is_what_apply_writes(tmp_path: Path):
    recipe = pruning(tmp_path, steps=[{"prune": {"method": "together", "target": {"macs": [0.75, 0.5]}}}])
    method = "steps.0.prune.method"
    swept(recipe, tmp_path / "family", f"{method}=together,reads")
    assert Together.calls == [[0.75, 0.5], [0.75, 0.5]], "what was pruned for a point is what its run takes"
    alone = applied(recipe, tmp_path / "alone", f"{MACS}=0.5", f"{method}=reads")
    stages = [place / "stages" / "01-prune" / "stage.json" for place in (tmp_path / "family" / "reads_macs-0.5", alone)]
    one, other = (json.loads(stage.read_text())["fingerprint"] for stage in stages)
    assert one == other, "of every train row, though the point that was loaded first reads none"


def test_stages_that_points_share_are_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hurry(monkeypatch)
    steps = [
        {"prune": {"method": "together", "target": {"macs": [0.75, 0.5]}}},
        {"export": "lookup"},
        {"verify": {"sequence": 8, "rounds": 3, "samples": 8}},
    ]
    plugin = Stopping(also=[lookup.Lookup])
    recipe = toy_recipe(tmp_path, steps=steps)
    swept(recipe, tmp_path / "family", "steps.2.verify.sequence=8,[8,16]", plugin=plugin)
    assert Together.calls == [[0.75, 0.5]]
    assert plugin.steps == ["prune", "export", "verify"] * 2 + ["verify"] * 2
    point = tmp_path / "family" / "sequence-8-16_macs-0.5"
    alone = applied(recipe, tmp_path / "alone", f"{MACS}=0.5", "steps.2.verify.sequence=[8,16]", also=[lookup.Lookup])
    assert files(point).keys() == files(alone).keys()
    for name in ("model.onnx", "model.safetensors", "stages/02-export/dense.onnx"):
        assert (point / name).read_bytes() == (alone / name).read_bytes(), name


def test_a_changed_sweep_takes_over_what_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hurry(monkeypatch)
    steps = [
        {"prune": {"method": "together", "target": {"macs": [0.75, 0.5]}}},
        {"export": "lookup"},
        {"verify": {"sequence": 8, "rounds": 3, "samples": 8}},
    ]
    recipe, out = toy_recipe(tmp_path, steps=steps), tmp_path / "family"
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, out, plugin=Stopping(at=6, also=[lookup.Lookup]))
    said: list[str] = []
    more = Stopping(also=[lookup.Lookup], at=3)
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, out, f"{MACS}=0.75,0.5,0.25", plugin=more, said=said)
    assert Together.calls == [[0.75, 0.5], [0.25]], "a longer list prunes what it adds"
    assert more.steps == ["verify", "prune", "export"], (
        "the first point is taken over whole, of the second what was done"
    )
    assert any(line.startswith("macs-0.75 is taken over from family.partial-") for line in said)
    last = Stopping(also=[lookup.Lookup])
    swept(recipe, out, "steps.2.verify.samples=9", plugin=last)
    assert Together.calls == [[0.75, 0.5], [0.25]]
    assert last.steps == ["verify", "verify"], "a changed last step begins where it changed"
    fresh = Stopping(also=[lookup.Lookup])
    swept(recipe, out, "steps.2.verify.samples=9", plugin=fresh, fresh=True)
    assert fresh.steps == ["prune", "export", "verify"] * 2


def test_a_sweep_over_something_else_prunes_point_by_point_and_resumes(tmp_path: Path):
    recipe = pruning(tmp_path, steps=[{"prune": {"method": "together", "target": {"macs": 0.5}}}])
    with pytest.raises(KeyboardInterrupt):
        swept(recipe, tmp_path / "family", "seed=0,1", plugin=Stopping(at=2))
    second = Stopping()
    swept(recipe, tmp_path / "family", "seed=0,1", plugin=second)
    assert Together.calls == [[0.5], [0.5]], "prune, one target at a time"
    assert second.steps == ["prune"]
    report = json.loads((tmp_path / "family" / "seed-1" / "report.json").read_text())
    assert report["recipe"]["seed"] == 1
    assert "shared_with" not in report["steps"][0]["metrics"]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("steps.2.verify.sequence=16,900", r"^--over steps\.2\.verify\.sequence  .*at most 160 tokens.*got 900"),
        ("model={0}/checkpoint,{0}/empty", "/empty"),
    ],
)
def test_what_the_last_point_cannot_use_is_said_before_the_first_runs(tmp_path: Path, over: str, said: str):
    plugin = Stopping()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompressorError, match=said):
        swept(toy_recipe(tmp_path), tmp_path / "family", over.format(tmp_path), plugin=plugin)
    assert plugin.steps == []
    assert not list(tmp_path.glob("family*"))


def test_a_target_of_a_later_step_shares_the_steps_before_it(tmp_path: Path):
    steps = [{"prune": {"method": "together", "target": {"macs": macs}}} for macs in (0.75, [0.5, 0.25])]
    swept(toy_recipe(tmp_path, steps=steps), tmp_path / "family")
    assert Together.calls == [[0.75], [0.5], [0.25]]


def test_nothing_is_overwritten_and_fresh_replaces_only_sweeps(tmp_path: Path):
    recipe = pruning(tmp_path)
    out = tmp_path / "family"
    swept(recipe, out)
    (out / "note.txt").write_text("of the user")
    with pytest.raises(InputError, match="exists already; nothing is overwritten"):
        swept(recipe, out)
    with pytest.raises(InputError, match=r"has no sweep\.json; --fresh replaces only what compress sweep wrote"):
        swept(recipe, tmp_path / "checkpoint", fresh=True)
    registry = Registry.load()
    plan = compile_plan(load_recipe(recipe, overrides=[f"{MACS}=0.5", "steps.0.prune.method=fisher"]), registry)
    with pytest.raises(InputError, match="--fresh replaces only what compress apply wrote"):
        run(plan, out, Conditions(registry, CPU), fresh=True)
    assert (out / "note.txt").exists()
    swept(recipe, out, fresh=True)
    assert not (out / "note.txt").exists()
    assert len(Together.calls) == 2
