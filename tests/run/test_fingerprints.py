"""What each stage depends on: a change undoes the stages from the first one that it touches, and no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.plugin import Registry
from compressor.plugin.provider import Provider
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import Plan, compile_plan
from compressor.run import fingerprints
from compressor.run.fingerprints import chain, stage_fingerprints
from compressor.run.load import open_session
from compressor.run.session import Session
from tests.toys import toy_recipe

REGISTRY = Registry.load()
STEPS = [
    {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
    {"train": {"max_steps": 2}},
    {"export": {"opset": 20}},
    {"verify": {"sequence": 16, "rounds": 3}},
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_recipe(tmp_path_factory.mktemp("fingerprints"), steps=STEPS)


@pytest.fixture(scope="module")
def session(recipe: Path) -> Session:
    return open_session(planned(recipe), REGISTRY, recipe.parent, torch.device("cpu"))


def planned(recipe: Path, *overrides: str) -> Plan:
    return compile_plan(load_recipe(recipe, overrides=overrides), REGISTRY)


def kept(one: Session, other: Session) -> int:
    """Return how many leading stages two sessions share; none after those may be the same."""
    pairs = list(zip(*(stage_fingerprints(each, REGISTRY) for each in (one, other)), strict=True))
    same = [first == second for first, second in pairs]
    assert same == sorted(same, reverse=True), "a stage of a changed one before it was kept"
    return sum(same)


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("name=other", 4),
        ("steps.3.verify.gates.macs=0.4", 3),
        ("steps.2.export.opset=18", 2),
        ("steps.1.train.max_steps=3", 1),
        ("steps.1.train.losses=[{name: task, weight: 0.5}]", 1),
        ("steps.0.prune.target.macs=0.4", 0),
        ("steps.0.prune.floor=0.2", 0),
        ("seed=1", 0),
        ("task.text=text", 4),
        ("task.max_length=31", 0),
        ("calibration.batch_size=4", 0),
    ],
)
def test_a_changed_option_undoes_its_own_step_and_what_follows(
    override: str, stages: int, recipe: Path, session: Session
):
    assert kept(session, replace(session, plan=planned(recipe, override))) == stages


def test_the_exporter_is_part_of_a_pruning_by_measured_latency_alone(recipe: Path, session: Session):
    latency, opset = "steps.0.prune.target={latency: 0.5}", "steps.2.export.opset=18"
    plans = [planned(recipe, latency), planned(recipe, latency, opset)]
    assert kept(replace(session, plan=plans[0]), replace(session, plan=plans[1])) == 0


def other_weights(session: Session) -> Session:
    teacher = copy.deepcopy(session.teacher)
    with torch.no_grad():
        next(teacher.parameters()).view(-1)[0] += 1e-6
    return replace(session, teacher=teacher)


def other_config(session: Session) -> Session:
    teacher: Any = copy.deepcopy(session.teacher)
    teacher.config.layer_norm_eps *= 2
    return replace(session, teacher=teacher)


def other_calibration(session: Session) -> Session:
    rows = [dict(row) for row in session.calibration.rows]
    rows[3]["labels"] = 1 - rows[3]["labels"]
    return replace(session, calibration=replace(session.calibration, rows=rows))


def upgraded(session: Session, key: str) -> Session:
    providers = {**session.plan.providers, key: Provider("plugins", "9.9", "there")}
    return replace(session, plan=replace(session.plan, providers=providers))


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        (other_weights, 0),
        (other_config, 0),
        (other_calibration, 0),
        (lambda session: replace(session, device=torch.device("cuda")), 0),
        (lambda session: replace(session, validation=session.validation[1:]), 1),
        (lambda session: replace(session, train_digest="of other rows"), 1),
        (lambda session: upgraded(session, "task:text-classification"), 0),
        (lambda session: upgraded(session, "method:fisher"), 0),
        (lambda session: upgraded(session, "loss:task"), 1),
        (lambda session: upgraded(session, "exporter:onnx"), 2),
        (lambda session: upgraded(session, "verification:verify"), 3),
    ],
    ids=(
        "weights",
        "config",
        "calibration",
        "device",
        "validation",
        "train",
        "task",
        "method",
        "loss",
        "exporter",
        "verification",
    ),
)
def test_a_changed_input_undoes_the_stages_that_read_it(
    changed: Callable[[Session], Session], stages: int, session: Session
):
    assert kept(session, changed(session)) == stages


def test_validation_rows_do_not_count_where_nothing_reads_them(recipe: Path, session: Session):
    plan = planned(recipe, "steps=[{prune: {method: fisher, target: {macs: 0.5}}}, {export: {}}]")
    opened = replace(session, plan=plan)
    assert kept(opened, replace(opened, validation=())) == 2


def test_another_version_of_a_library_undoes_everything(session: Session, monkeypatch: pytest.MonkeyPatch):
    before = stage_fingerprints(session, REGISTRY)
    monkeypatch.setattr(fingerprints, "versions", lambda: {"torch": "0.0.1"})
    assert not set(before) & set(stage_fingerprints(session, REGISTRY))


def test_parts_of_a_fingerprint_do_not_run_together():
    assert chain("ab", "c") != chain("a", "bc")
