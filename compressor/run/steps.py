"""What each verb does to a session. The only module that assigns to one.

Every verb has two functions: one does the step and returns its figures, the other puts a finished step's results back
into the session of a resumed run, from the files the first one left in the stage directory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from compressor.model import checkpoint
from compressor.model.artifact import Artifact, file_sparsity
from compressor.model.costs import encoder_macs, parameters
from compressor.model.files import write_text
from compressor.model.masks import Masks
from compressor.model.outputs import OUTPUT_NAMES
from compressor.plugin import Training, hookimpl
from compressor.plugin.components import Exporter, Pruned, PruningMethod, Quantizer
from compressor.progress import track
from compressor.recipe.options import Verification
from compressor.recipe.plan import Step
from compressor.run.calls import NamedFamily, plugin_call, read_only
from compressor.run.pruning import applied, checked_pruned
from compressor.run.quantization import quantization_data
from compressor.run.session import Outcome, Session, latest
from compressor.run.trimming import Read, kept_trimmed, read_anew, trim
from compressor.run.variants import file_name, named
from compressor.run.verification import Reading, Subject, verify
from compressor.train import TrainingRun

WEIGHT_MASKS, ALIGNED = "weight_masks.safetensors", "aligned.json"


def _stage(step: Step, session: Session) -> Path:
    return session.run_dir / "stages" / step.slug


def _prune(step: Step, session: Session) -> dict[str, Any]:
    place = f"step {step.slug}"
    family = NamedFamily(session.family, place)
    with plugin_call(step.component, place):
        pruned = session.given.get(step.slug) or _pruned(step, session)
        done = applied(session, family, pruned)
        stage = _stage(step, session)
        trimming = None if pruned.trimmed is None else trim(session, pruned.trimmed, done.model, stage)
    shrunk = done.model if trimming is None else trimming.model
    checkpoint.save(shrunk, stage / "model")
    length = pruned.metrics.get("sequence", session.calibration.mean_length)
    figures = {
        **pruned.metrics,
        "parameters": {"dense": parameters(session.dense.teacher), "compressed": parameters(shrunk)},
        "encoder_macs": {
            "dense": encoder_macs(session.teacher, session.family.groups(session.teacher), length),
            "compressed": encoder_macs(shrunk, session.family.groups(shrunk), length),
            "sequence": length,
        },
        **done.figures,
    }
    if trimming is not None:
        figures["vocabulary"] = trimming.figures
        _adopt_read(trimming.read, session)
    session.model, session.weight_masks, session.aligned = shrunk, done.weight_masks, done.aligned
    session.masks.save(stage / "masks.safetensors")
    session.weight_masks.save(stage / WEIGHT_MASKS)
    write_text(stage / ALIGNED, json.dumps(sorted(session.aligned)))
    return figures


def _pruned(step: Step, session: Session) -> Pruned:
    """Call the method, which may read the session and changes nothing of it."""
    with read_only(step.component, session):
        return checked_pruned(cast("PruningMethod", step.component).prune(session))


def _adopt_read(read: Read, session: Session) -> None:
    """Have everything in the ids of a trimmed vocabulary from now on."""
    session.untrimmed = session.dense if session.untrimmed else replace(session)
    session.teacher, session.tokenizer = read.teacher, read.tokenizer
    session.trimmed_tokenizer, session.kept_tokens = read.tokenizer_files, read.kept_tokens
    session.calibration, session.validation = read.calibration, read.validation
    session.train_rows, session.train_digest = read.train_rows, read.train_digest


def _train(step: Step, session: Session) -> dict[str, Any]:
    options = cast("Training", step.component)
    before = session.quality(session.model)
    trained = TrainingRun(session, options).fit()
    after = session.quality(trained.model)
    checkpoint.save(trained.model, _stage(step, session) / "model")
    dense = _makes_dense(session)
    _adopt(trained.model, session, dense=dense)
    quality = {"metric": session.task.metric, "before": before, "after": after}
    return {
        "training": {
            "makes": "the dense model" if dense else "a recovered model",
            **trained.figures,
            **({"quality": quality} if before else {}),
        }
    }


def _makes_dense(session: Session) -> bool:
    """Tell whether what is trained now is what everything is compared with: nothing was pruned yet."""
    return all(outcome.step.verb != "prune" for outcome in session.outcomes)


def _adopt(model: torch.nn.Module, session: Session, *, dense: bool) -> None:
    session.model = model
    if dense:
        session.teacher = model


def _restore_train(step: Step, session: Session, _: Mapping[str, Any]) -> None:
    _adopt(_load_stage(step, session), session, dense=_makes_dense(session))


def _load_stage(step: Step, session: Session) -> torch.nn.Module:
    by_type = dict.fromkeys(session.family.model_types, session.family)
    loaded = checkpoint.load(_stage(step, session) / "model", by_type)
    return loaded.to(session.device).requires_grad_(False)


def _restore_prune(step: Step, session: Session, _: Mapping[str, Any]) -> None:
    trimmed = kept_trimmed(_stage(step, session))
    if trimmed is not None:
        _adopt_read(read_anew(session, trimmed, _stage(step, session)), session)
    session.model = _load_stage(step, session)
    session.weight_masks = Masks.load(_stage(step, session) / WEIGHT_MASKS)
    session.aligned = frozenset(json.loads((_stage(step, session) / ALIGNED).read_text(encoding="utf-8")))


def _export(step: Step, session: Session) -> dict[str, Any]:
    stage = _stage(step, session)
    exporter = cast("Exporter", step.component)
    names = {"input_names": session.input_names, "output_names": OUTPUT_NAMES[session.task.head]}
    made: dict[str, Artifact] = {}
    not_fused: dict[str, str] = {}
    models = {"dense": session.dense.teacher, "model": session.model}
    with (
        plugin_call(exporter, f"step {step.slug}"),
        read_only(exporter, session),
    ):  # once for both: it hashes all weights
        for name, model in track(models.items(), "export dense and compressed"):
            made[name] = exporter.export(model, stage / file_name(name), **names)
            fused = exporter.export_fused(model, stage / file_name(f"{name}_ort"), **names)
            if isinstance(fused, str):
                not_fused["not_fused"] = fused
            elif fused is not None:
                made[f"{name}_ort"] = fused
    session.artifacts |= made
    figures: dict[str, Any] = {"artifacts": {name: _plain(artifact) for name, artifact in made.items()}, **not_fused}
    if session.weight_masks.keep:
        figures["file_sparsity"] = {name: file_sparsity(made[name].path) for name in ("dense", "model")}
    return figures


def _quantize(step: Step, session: Session) -> dict[str, Any]:
    """Quantise the dense model too: what int8 alone gives is what pruning must be better than."""
    stage = _stage(step, session)
    quantizer = cast("Quantizer", step.component)
    made = {}
    for name in ("dense", "model"):
        source = session.artifacts[name]
        data = quantization_data(session.dense if name == "dense" else session, source)
        with plugin_call(quantizer, f"step {step.slug}"):
            made[f"{name}_int8"] = quantizer.quantize(source, data, stage / file_name(f"{name}_int8"))
    session.artifacts |= made
    return {"artifacts": {name: _plain(artifact) for name, artifact in made.items()}}


def _plain(artifact: Artifact) -> dict[str, Any]:
    return {**asdict(artifact), "path": artifact.path.name}


def _restore_artifacts(step: Step, session: Session, metrics: Mapping[str, Any]) -> None:
    for name, fields in metrics["artifacts"].items():
        names = {key: tuple(fields[key]) for key in ("input_names", "output_names")}
        artifact = Artifact(**{**fields, **names})
        session.artifacts[name] = replace(artifact, path=_stage(step, session) / artifact.path)


def _verify(step: Step, session: Session) -> dict[str, Any]:
    costs = latest(session, "encoder_macs")
    return verify(
        Subject(
            task=session.task,
            rows=session.validation,
            tokenizer=session.tokenizer,
            dense=Reading(session.dense.validation, session.dense.tokenizer) if session.untrimmed else None,
            files=named({name: artifact.path for name, artifact in session.artifacts.items()}),
            macs_ratio=costs["compressed"] / costs["dense"] if costs else 1.0,
        ),
        cast("Verification", step.component),
        seed=session.seed,
    )


def _restore_nothing(_: Step, __: Session, ___: Mapping[str, Any]) -> None:
    """Put nothing back: the figures of this step are all it leaves."""


@dataclass(frozen=True)
class Verb:
    """How a verb is done, and how a finished one is put back."""

    run: Callable[[Step, Session], dict[str, Any]]
    restore: Callable[[Step, Session, Mapping[str, Any]], None]


VERBS: Mapping[str, Verb] = {
    "prune": Verb(_prune, _restore_prune),
    "train": Verb(_train, _restore_train),
    "export": Verb(_export, _restore_artifacts),
    "quantize": Verb(_quantize, _restore_artifacts),
    "verify": Verb(_verify, _restore_nothing),
}


@hookimpl(trylast=True)
def compressor_run_step(step: Step, session: Session) -> Outcome:
    """Run a step; the last to be asked, and always answers."""
    start = time.perf_counter()
    metrics = VERBS[step.verb].run(step, session)
    return Outcome(step=step, seconds=time.perf_counter() - start, metrics=metrics)


def record(outcome: Outcome, session: Session) -> None:
    """Append a finished step's outcome."""
    session.outcomes.append(outcome)


def restore(step: Step, session: Session, *, seconds: float, metrics: Mapping[str, Any]) -> None:
    """Put a finished step's results back into the session of a resumed run."""
    VERBS[step.verb].restore(step, session, metrics)
    record(Outcome(step=step, seconds=seconds, metrics=metrics), session)


def join(step: Step, session: Session) -> None:
    """Take part in a step that the first of several processes does; what comes of it is read from its files."""
    with plugin_call(step.component, f"step {step.slug}"):
        if isinstance(step.component, PruningMethod):
            _pruned(step, session)
        else:
            TrainingRun(session, cast("Training", step.component)).fit()
