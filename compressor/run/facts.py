"""What a run is, before it does anything: what its lock file pins, and a replay compares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compressor.model import checkpoint
from compressor.model.companions import tokenizer_paths
from compressor.model.files import sha256
from compressor.plugin import PruningMethod
from compressor.recipe.lock import Row, flat, locked_facts
from compressor.recipe.plan import Plan
from compressor.recipe.reads import reads_texts
from compressor.run.calls import plugin_call
from compressor.run.data import Calibration, rows_digest
from compressor.run.fingerprints import config_text
from compressor.run.preflight import tasks_read
from compressor.run.session import Session
from compressor.verify.environment import environment

DIGITS = 8
"""Of a row's sha256: enough to say which row was changed; all of them together have a whole one."""


def facts_of(session: Session) -> dict[str, Any]:
    """Return everything that the lock file of a run pins, but for what the run makes; plain data.

    Args:
        session: at the beginning of the run, or later.
    """
    known = environment()
    gpu = {"gpu": torch.cuda.get_device_name(session.device)} if session.device.type == "cuda" else {}
    return locked_facts(
        session.plan,
        environment={name: known[name] for name in ("python", "platform", "packages")},
        hardware={
            "device": session.device.type,
            **gpu,
            "cpu": known["cpu"],
            "cpu_features": Row(known["cpu_features"]),
            "threads": torch.get_num_threads(),
        },
        inputs=_inputs(session),
    )


def named_files(plan: Plan) -> Iterator[Path]:
    """Yield the files that options of pruning methods name, whose content the result depends on."""
    for step in plan.steps:
        if isinstance(step.component, PruningMethod):
            yield from step.component.files


def places(plan: Plan) -> Iterator[str]:
    """Yield what options of steps say of where things are that are compared by their content."""
    yield from map(str, named_files(plan))
    for task in (task for step in plan.steps for task in tasks_read(step, plan) if task != plan.task):
        yield from (
            value for _, value in flat(task.options()) if isinstance(value, str) and Path(value).expanduser().exists()
        )


def as_locked(plan: Plan, facts: Mapping[str, Any]) -> Plan:
    """Return the plan with a task that reads the data at the version that was read; as it is where it names another.

    Args:
        plan: of a replay, or of a finished run that is measured again.
        facts: what the lock file says.
    """
    asked, locked = json.loads(json.dumps(plan.resolved()["task"])), facts.get("recipe", {}).get("task")
    if asked != locked:
        return plan
    with plugin_call(plan.task, "asking for the rows that were locked"):
        return replace(plan, task=plan.task.pinned_to(facts.get("inputs", {})))


def _inputs(session: Session) -> dict[str, Any]:
    source = session.source
    with plugin_call(session.task, "asking where the rows come from"):
        pinned = dict(session.task.pinned())
    return {
        "model_revision": source.name if source.parent.name == "snapshots" else None,
        "weights_sha256": checkpoint.fingerprint(source),
        "config_sha256": hashlib.sha256(config_text(session).encode()).hexdigest(),
        **pinned,
        "calibration": _calibration(session.calibration),
        "validation_sha256": rows_digest(session.validation),
        **_files(session),
        **({"train_sha256": session.train_digest} if session.train_digest else {}),
    }


def _files(session: Session) -> dict[str, Any]:
    """Return hashes of what steps read: the tokenizer's files, for a trimmed vocabulary, ``named_files``, and tasks of their own."""
    digests = [sha256(path) for path in tokenizer_paths(session.source)] if any(reads_texts(session.plan.steps)) else []
    named = [sha256(path) for path in named_files(session.plan)]
    rows = [digest for step in session.read_digests.values() for digest in step]
    return {
        **({"tokenizer_sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest()} if digests else {}),
        **({"named_files_sha256": named} if named else {}),
        **({"read_rows_sha256": rows} if rows else {}),
    }


def _calibration(drawn: Calibration) -> dict[str, Any]:
    """Return which rows of the train split were drawn, and hashes of what they hold."""
    rows = dict(sorted(zip(drawn.numbers, drawn.rows, strict=True)))
    return {
        "rows": len(drawn.rows),
        "sha256": rows_digest(drawn.rows),
        "ids": Row(rows),
        "row_sha256": " ".join(rows_digest([row])[:DIGITS] for row in rows.values()),
    }
