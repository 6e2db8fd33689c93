"""What a finished run leaves: the files a server reads at the root, the proof beside them, the stages below."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from compressor.model import checkpoint, shapes
from compressor.model.artifact import Artifact
from compressor.model.files import sha256, write_text
from compressor.model.served import ORT_CONFIG
from compressor.recipe.lock import Lock, lock_text
from compressor.recipe.options import Verification
from compressor.recipe.plan import Plan
from compressor.recipe.replay import unreproduced
from compressor.run.data import rows_digest
from compressor.run.documents import REPORT, write_documents
from compressor.run.session import Session, latest
from compressor.run.trimming import TOKENIZER
from compressor.verify.environment import environment
from compressor.verify.report import SCHEMA_VERSION, write_report

__all__ = ["REPORT", "build_report", "drop_duplicates", "keep_recipe", "served", "write_output"]

WEIGHTS = "model.safetensors"
DENSE = "dense.onnx"
RECIPE = "recipe.yaml"
LOCK = "recipe.lock.yaml"
CHECKS = ("quality", "variants", "latency", "serve", "warnings", "gates")
"""Parts of a report that the step verify makes."""


def keep_recipe(plan: Plan, root: Path) -> None:
    """Copy the recipe as it is now: what is edited during the run is not what ran."""
    shutil.copyfile(plan.recipe.source, root / RECIPE)


def build_report(session: Session) -> dict[str, Any]:
    """Return what ``report.json`` holds; its schema is in ``verify/report.py``."""
    plan = session.plan
    sizes = {name: latest(session, name) for name in ("parameters", "encoder_macs", "bytes")}
    checks = next((o.metrics for o in reversed(session.outcomes) if isinstance(o.step.component, Verification)), {})
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": {
            "name": plan.recipe.name,
            "digest": plan.digest,
            "seed": plan.recipe.seed,
            "model": plan.recipe.model,
            "task": {"name": plan.task.name, **plan.task.options()},
        },
        "environment": checks.get("environment") or environment(),
        "inputs": {
            "model_revision": session.source.name if session.source.parent.name == "snapshots" else None,
            "weights_sha256": checkpoint.fingerprint(session.source),
            "validation_sha256": rows_digest(session.dense.validation),
            "calibration_rows": len(session.calibration.rows),
            "calibration_mean_length": session.calibration.mean_length,
        },
        **_sparsity(session),
        **({"not_fused": why} if (why := latest(session, "not_fused")) else {}),
        **_vocabulary(session),
        "layers": _layers(session),
        "model": {name: size for name, size in sizes.items() if size is not None},
        **{name: checks[name] for name in CHECKS if name in checks},
        "passed": checks.get("passed", True),
        "lints": list(plan.lints),
        "steps": [
            {"slug": o.step.slug, "call": repr(o.step), "seconds": o.seconds, "metrics": dict(o.metrics)}
            for o in session.outcomes
        ],
    }


def _sparsity(session: Session) -> dict[str, Any]:
    """Return what masks of weights remove, of three denominators, and the zeros that the files have."""
    masked, files = latest(session, "sparsity"), latest(session, "file_sparsity")
    return {"sparsity": {"masks": masked, **({"files": files} if files else {})}} if masked else {}


def _vocabulary(session: Session) -> dict[str, Any]:
    """Return what was kept of the vocabulary and of the positions, and of which rows that changes the tokens."""
    found = latest(session, "vocabulary")
    return {"vocabulary": found} if found else {}


def _layers(session: Session) -> list[dict[str, Any]]:
    """Return what is left of each layer of the model that the run started from, under its number in the dense model."""
    groups, masks = session.family.groups(session.teacher), session.masks.keep
    ids = shapes.layer_ids(session.teacher.config, groups)
    left = shapes.layer_ids(session.model.config, session.groups)
    found: dict[int, dict[str, Any]] = {}
    for group in groups:
        layer = found.setdefault(ids[group.index], {"layer": ids[group.index]})
        layer[group.kind] = {"kept": int(masks[group.name].sum()), "of": group.units}
    return [{**found[layer], "dropped": layer not in left} for layer in ids]


def write_output(
    session: Session, report: dict[str, Any], facts: dict[str, Any], locked: Lock | None = None
) -> dict[str, Any]:
    """Write the root of the run directory; what is in it already, a killed run left there, is replaced.

    Args:
        session: at the end of the run.
        report: as ``build_report`` gives it.
        facts: what ``facts_of`` gave at the beginning of the run.
        locked: the lock file that is replayed.

    Returns:
        The report as it was written; a replay's says whether the files are those of the lock file.
    """
    root = session.run_dir
    checkpoint.save(session.model, root, tokenizer_source=session.source, tokenizer=session.trimmed_tokenizer)
    for artifact in served(session):
        shutil.copyfile(artifact.path, root / artifact.path.name)
    if "serve" in report:
        write_text(root / ORT_CONFIG, json.dumps(report["serve"], indent=2) + "\n")
    outputs = {path.name: sha256(path) for path in sorted([*root.glob("*.onnx"), root / WEIGHTS])}
    if locked is not None:
        changed = {one.what: {"locked": one.locked, "present": one.present} for one in unreproduced(locked, outputs)}
        report = {**report, "replay": {"reproduced": not changed, "outputs": outputs, "changed": changed}}
    write_text(root / LOCK, lock_text(facts, outputs=outputs))
    write_documents(report, root)
    write_report(report, root / REPORT)
    return report


def served(session: Session) -> list[Artifact]:
    """Return the files that a server may read: all of the compressed model."""
    return [artifact for name, artifact in session.artifacts.items() if name.startswith("model")]


def drop_duplicates(root: Path) -> None:
    """Remove what a stage kept for resuming and the root has as well: a finished run does not resume."""
    for stage in (root / "stages").iterdir():
        shutil.rmtree(stage / "model", ignore_errors=True)
        shutil.rmtree(stage / TOKENIZER, ignore_errors=True)
        for file in root.glob("*.onnx"):
            (stage / file.name).unlink(missing_ok=True)
