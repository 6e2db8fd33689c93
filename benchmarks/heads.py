"""Compare what chooses heads: ``python benchmarks/heads.py --model DIR --data GLUE_DIR --scorers base.bin large.bin scorer.safetensors``.

For every criterion and share of heads kept (of every layer, as the published quota): the task's metric and KL(dense || pruned) of the
torch model with the heads removed, on the validation split, before and after recovery by a few steps of distillation, and the
seconds that scoring took. A scorer is named by its file; the baselines are the criteria of the method ``heads``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from compressor.model import collate, shrink
from compressor.plugin import PruningMethod, Registry, Target, Training
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import load
from compressor.run.session import Session
from compressor.train import TrainingRun
from compressor.verify.evaluate import compare, torch_outputs
from compressor_plugins.methods.heads import Heads
from compressor_plugins.methods.smp import Smp

BASELINES = ("relation", "output-norm", "curvature", "random")
COLUMNS = ("criterion", "kept", "metric", "kl", "recovered", "recovered_kl", "seconds")


def main() -> None:
    """Print a Markdown table and write every row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--scorers", nargs="*", default=[], help="files of scorers")
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5, 0.25])
    parser.add_argument("--recover", type=float, nargs="*", default=[0.75, 0.5, 0.25], help="of these, which to train")
    parser.add_argument("--steps", type=int, default=60, help="of recovery, 16 rows each")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--rows", type=int, help="validation rows, the first so many; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every row here")
    options = parser.parse_args()
    rows = []
    for row in measure(options):
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of every criterion and share of heads."""
    with tempfile.TemporaryDirectory() as directory:
        session, recovery = opened(options, Path(directory))
        dense = outputs(session, session.model)
        yield {"criterion": "dense", "kept": 1.0, "metric": compared(session, dense, dense)["metric"]}
        targets = [Target(heads=keep) for keep in options.keep]
        for name, method in methods(options).items():
            for keep, pruned in zip(options.keep, method.prune_all(session, targets), strict=True):
                smaller = shrink(session.model, session.family, pruned.masks).requires_grad_(requires_grad=False)
                row = {
                    "criterion": name,
                    "kept": keep,
                    "seconds": pruned.metrics["seconds"]["scores"],
                    "masks": {
                        group: mask.int().tolist() for group, mask in pruned.masks.keep.items() if "ffn" not in group
                    },
                    **compared(session, outputs(session, smaller), dense),
                }
                if keep in options.recover:
                    after = compared(session, outputs(session, recovered(session, smaller, recovery)), dense)
                    row |= {f"recovered_{figure}": value for figure, value in after.items()}
                    row["recovered"] = row.pop("recovered_metric")
                yield row


def methods(options: argparse.Namespace) -> Mapping[str, PruningMethod]:
    """Return the methods to compare, by the name of what scores."""
    target, shared = Target(heads=0.5), {"sentences": options.sentences}
    scorers = {Path(file).name: Smp(target=target, scorer=Path(file), **shared) for file in options.scorers}
    return scorers | {name: Heads(target=target, criterion=name, **shared) for name in options.baselines}


def opened(options: argparse.Namespace, directory: Path) -> tuple[Session, Training]:
    """Load the checkpoint, its rows, and how to recover."""
    training = {"max_steps": options.steps, "batch_size": 16, "learning_rate": 5e-5, "dropout": False}
    recipe = {
        "name": "heads",
        "model": str(Path(options.model).resolve()),
        "task": {"name": "glue", "subset": options.subset, "path": str(Path(options.data).resolve())},
        "calibration": {"samples": 512, "batch_size": 32},
        "seed": options.seed,
        "steps": [
            {"prune": {"method": "heads", "target": {"heads": 0.5}}},
            {"train": {**training, "losses": [{"name": "distillation", "temperature": 2.0}]}},
        ],
    }
    path = directory / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    registry = Registry.load()
    plan = compile_plan(load_recipe(path), registry)
    session = load.open_session(plan, registry, directory, load.resolve_device("cpu"))
    return replace(session, validation=session.validation[: options.rows]), cast("Training", plan.steps[1].component)


def recovered(session: Session, model: nn.Module, options: Training) -> nn.Module:
    """Return the model after training."""
    trained = TrainingRun(replace(session, model=model), options).fit().model
    shutil.rmtree(session.stage, ignore_errors=True)
    return trained.requires_grad_(requires_grad=False)


def outputs(session: Session, model: nn.Module) -> np.ndarray:
    """Return z of every validation row."""
    padded = partial(collate, tokenizer=session.tokenizer)
    return torch_outputs(model, session.validation, task_output=session.task.output, collate=padded)


def compared(session: Session, found: np.ndarray, dense: np.ndarray) -> dict[str, Any]:
    """Return the metric and the divergence."""
    result = compare(session.task, found, dense, session.validation)
    return {"metric": result.compressed[result.metric], "kl": result.kl}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row per criterion and share."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for row in rows:
        cells = [row.get(name, "") for name in COLUMNS]
        lines.append(f"| {' | '.join(f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
