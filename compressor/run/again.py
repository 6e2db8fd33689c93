"""Measure finished runs and ONNX files again, on the machine at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.model import max_positions
from compressor.model.served import PORTABLE
from compressor.plugin.registry import Registry
from compressor.recipe.document import read_document
from compressor.recipe.loader import load_recipe
from compressor.recipe.options import Verification
from compressor.recipe.plan import Plan, compile_plan
from compressor.run.documents import read_report
from compressor.run.facts import as_locked
from compressor.run.load import load, load_rows, load_tokenizer
from compressor.run.output import DENSE, LOCK, REPORT
from compressor.run.trimming import DENSE_TOKENIZER
from compressor.run.variants import ARTIFACTS, file_name, named
from compressor.run.verification import Reading, Subject, verify
from compressor.verify.environment import environment
from compressor.verify.latency import measure
from compressor.verify.rounds import Protocol, Shape
from compressor.verify.statistics import Resampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def verify_again(directory: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Repeat a finished run's verification: same rows, same gates, this machine. Writes nothing.

    Args:
        directory: the run's output directory.
        shape: options of the verify step to replace, e.g. ``{"batch": (1, 8)}``.

    Raises:
        InputError: the directory is no finished run with an exported model, or its data are gone.
    """
    plan, report = read_run(directory)
    asked = [step.component for step in plan.steps if isinstance(step.component, Verification)]
    options = Verification.model_validate(
        {**(asked[-1].options() if asked else {}), **shape}, context={"registry": Registry.load()}
    )
    model: Any = load(directory)
    longest = max_positions(model)
    if max(options.sequence) > longest:
        raise InputError(
            f"{directory}: a sequence of {max(options.sequence)} tokens: the model has {longest} positions"
        )
    tokenizer = load_tokenizer(directory, longest=longest)

    def reading(tokenizer: PreTrainedTokenizerBase) -> Reading:
        rows = load_rows(plan.task, "validation", tokenizer, label2id=model.config.label2id)
        return Reading(rows.to_list(), tokenizer)

    own = reading(tokenizer)
    dense = [reading(load_tokenizer(place, longest=longest)) for place in directory.glob(f"stages/*/{DENSE_TOKENIZER}")]
    costs = report["model"].get("encoder_macs", {"dense": 1.0, "compressed": 1.0})
    subject = Subject(
        task=plan.task,
        rows=own.rows,
        tokenizer=own.tokenizer,
        dense=dense[0] if dense else None,
        files=named({file.stem: file for file in (*dense_files(directory), *directory.glob("*.onnx"))}),
        macs_ratio=costs["compressed"] / costs["dense"],
    )
    found = verify(subject, options, seed=plan.recipe.seed)
    sizes = {**report["model"], "bytes": found.pop("bytes")}
    return {**report, **found, "model": sizes}


def read_run(directory: Path) -> tuple[Plan, dict[str, Any]]:
    """Return the plan and the report of a finished run.

    Raises:
        InputError: the directory is not one.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory")
    missing = [name for name in (LOCK, REPORT, PORTABLE) if not (directory / name).is_file()]
    if missing:
        raise InputError(
            f"{directory}: not a finished run with an exported model: {', '.join(missing)} missing",
            hint="name the directory that compress apply wrote",
        )
    try:
        report: dict[str, Any] = json.loads((directory / REPORT).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{directory / REPORT} is damaged: {error}") from error
    recipe = load_recipe(directory / LOCK, model=str(directory.resolve()))  # the source checkpoint may be gone
    return as_locked(compile_plan(recipe, Registry.load()), read_document(directory / LOCK).data), report


def dense_files(directory: Path) -> list[Path]:
    """Return the dense model's ONNX files, which the stages left, the portable one first.

    Raises:
        InputError: that one is gone.
    """
    portable = sorted(directory.glob(f"stages/*/{DENSE}"))
    if not portable:
        raise InputError(f"{directory}: stages/*/{DENSE} is gone, there is nothing to compare with")
    return [portable[-1], *sorted(directory.glob("stages/*/dense_*.onnx"))]


def bench_files(models: Sequence[Path], options: Verification, *, judged: bool = False) -> dict[str, Any]:
    """Time ONNX files against the first one, interleaved.

    Args:
        models: ONNX files, or run directories, whose ``model.onnx`` is meant; one run directory alone is timed
            against its own dense model.
        options: shapes, threads, rounds and provider.
        judged: of run directories, time the file that their figures are of: the int8 one where there is one.

    Raises:
        InputError: a file is missing or cannot be run.
    """
    files = named_files(models, judged=judged)
    rows = measure(
        files,
        [Shape(batch, sequence) for batch in options.batch for sequence in options.sequence],
        threads=options.threads,
        provider=options.provider,
        protocol=Protocol(rounds=options.rounds, resampling=Resampling(confidence=options.confidence)),
    )
    return {"latency": [asdict(row) for row in rows], "environment": environment()}


def named_files(models: Sequence[Path], *, judged: bool = False) -> dict[str, Path]:
    """Return the ONNX files by a short name each."""
    served = judged_file if judged else _portable_file
    pairs = [(path.resolve().name, served(path) if path.is_dir() else path) for path in models]
    if len(models) == 1 and (models[0] / PORTABLE).is_file():
        pairs.insert(0, ("dense", dense_files(models[0])[0]))
    files: dict[str, Path] = {}
    for name, file in pairs:
        if not file.is_file():
            raise InputError(f"{file}: no such file", hint="name ONNX files, or directories that compress apply wrote")
        files[name if name not in files else f"{name} ({len(files) + 1})"] = file
    return files


def judged_file(directory: Path) -> Path:
    """Return the file of a run that its table is about: ``quality.model`` of its report; the portable one without."""
    judged = (read_report(directory).get("quality") or {}).get("model")
    return directory / next((file_name(stem) for stem, label in ARTIFACTS.items() if label == judged), PORTABLE)


def _portable_file(directory: Path) -> Path:
    return directory / PORTABLE
