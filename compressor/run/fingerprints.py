"""What every stage of a run depends on, as a chain of hashes.

The hash of a stage is over the run's inputs and over its own step and those before it, so a changed last step leaves
the first stages as they are. Validation rows, train rows and the exporter count only where a stage reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from compressor.model import checkpoint
from compressor.model.companions import tokenizer_paths
from compressor.model.files import sha256
from compressor.plugin import Component, PruningMethod, Quantizer, Target, Training
from compressor.plugin.component import nested
from compressor.plugin.registry import Registry
from compressor.recipe.options import Verification
from compressor.recipe.plan import Plan, Step
from compressor.run.data import rows_digest
from compressor.run.latency import exporter_of
from compressor.run.session import Session
from compressor.verify.environment import versions

UNTOLD = {"_name_or_path", "transformers_version"}
"""Fields of a config that say nothing about the model."""


def chain(*parts: str) -> str:
    """Return the sha256 of the parts, none of which can run into the next."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def stage_fingerprints(session: Session, registry: Registry) -> tuple[str, ...]:
    """Return the fingerprint of every step's stage, in order.

    Args:
        session: as it was opened: no step has changed its model yet.
        registry: knows who provides the model's family.
    """

    @cache
    def validation() -> str:
        return rows_digest(session.validation)

    found: list[str] = []
    so_far = _inputs(session, registry)
    for step in session.plan.steps:
        read = [validation()] if _reads_validation(step) else []
        if _trains(step):
            read.append(session.train_digest)
        if isinstance(step.component, PruningMethod):
            read += [sha256(path) for path in step.component.files]
        read += session.read_digests.get(step.slug, ())
        if step.reads_texts:
            read += [session.train_digest, *(sha256(path) for path in tokenizer_paths(session.source))]
        if _of_latency(step):
            read += _exporter(session.plan, registry)
        so_far = chain(so_far, step.slug, *_described(step.component, session.plan), *read)
        found.append(so_far)
    return tuple(found)


def config_text(session: Session) -> str:
    """Return the config of the model that the run started from as JSON, but for where it lies and what read it."""
    config: Any = session.teacher.config
    kept = {name: value for name, value in config.to_dict().items() if name not in UNTOLD}
    return json.dumps(kept, sort_keys=True, default=str)


def _inputs(session: Session, registry: Registry) -> str:
    """Hash what every stage depends on, whatever the recipe calls it and wherever it lies."""
    plan = session.plan
    return chain(
        checkpoint.fingerprint(session.teacher),
        config_text(session),
        *_described(plan.task, plan),
        rows_digest(session.calibration.rows),
        str(plan.calibration.batch_size),
        str(plan.recipe.seed),
        str(registry.provider("family", session.family.name)),
        session.device.type,
        json.dumps(versions(), sort_keys=True),
    )


def _described(component: Component, plan: Plan) -> Iterator[str]:
    """Yield what a component is, every option of it, and who provides it and what is nested in it."""
    yield f"{component.kind}:{component.name}"
    yield json.dumps(component.options(), sort_keys=True)
    for one in nested(component):
        yield str(plan.providers[f"{one.kind}:{one.name}"])


def _reads_validation(step: Step) -> bool:
    """Tell whether a step looks at validation rows: it verifies, or judges what it quantised or trained."""
    return isinstance(step.component, Verification | Quantizer) or _trains(step) or step.reads_texts


def _trains(step: Step) -> bool:
    return any(isinstance(component, Training) for component in nested(step.component))


def _of_latency(step: Step) -> bool:
    target = getattr(step.component, "target", None)
    return isinstance(target, Target) and target.of_latency


def _exporter(plan: Plan, registry: Registry) -> list[str]:
    """Return what decides the files that a latency table is measured on."""
    exporter = exporter_of(plan)
    return [
        exporter.name,
        json.dumps(exporter.options(), sort_keys=True),
        str(registry.provider("exporter", exporter.name)),
    ]
