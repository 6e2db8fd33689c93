"""Measure what each option of `fisher` is worth on a GLUE checkpoint: accuracy, KL to dense, agreement with dense.

    python benchmarks/fisher_ablation.py --model CHECKPOINT --task GLUE_DIRECTORY --subset mrpc --keep 0.6 0.4 --seeds 0 1

Every variant but the last changes one option of the defaults. Figures are of the torch model with the units physically removed,
on the whole validation split; a cell is the mean over seeds (every accuracy is in the JSON).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from training_free import opened, outputs

from compressor.model import Masks, shrink
from compressor.model.costs import encoder_macs
from compressor.plugin import Registry, Target
from compressor.verify.evaluate import compare
from compressor_plugins.methods import _fisher
from compressor_plugins.methods.fisher import Fisher

PUBLISHED = {"importance": "batch-mean", "tuning": "scales", "teacher": "milder"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "importance: batch-mean": {"importance": "batch-mean"},
    "rearrange: false": {"rearrange": False},
    "teacher: milder": {"teacher": "milder"},
    "tuning: scales": {"tuning": "scales"},
    "tuning: none": {"tuning": "none"},
    "floor: 0.01": {"floor": 0.01},
    "as published": PUBLISHED,
}
FIGURES = ("accuracy", "kl", "agreement", "macs", "seconds")


def main() -> None:
    """Print a Markdown table and write every single figure as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--task", dest="data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.set_defaults(batch_size=32, device="cpu")
    arguments = parser.parse_args()
    results = [row for seed in arguments.seeds for row in measure(arguments, seed)]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results, arguments))


def measure(arguments: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of every variant and keep level on the calibration rows of one seed."""
    session = opened(arguments, seed, Registry.load())
    dense = outputs(session, session.model, None)
    before = session.task.metrics(session.task.rows(dense, dense, session.validation))
    print(f"seed {seed}: dense accuracy {before['accuracy']:.4f}", file=sys.stderr)
    gradients: dict[str, _fisher.Gradients] = {}
    for keep in arguments.keep:
        masks: dict[tuple[Any, ...], tuple[Masks, Masks]] = {}
        for name in arguments.variants:
            method = Fisher(target=Target(macs=keep), **VARIANTS[name])
            start = time.perf_counter()
            if method.importance not in gradients:
                gradients[method.importance] = _fisher.importance_gradients(method, session)
            chosen = (method.importance, method.rearrange, method.teacher, method.floor)
            length = session.calibration.mean_length
            if chosen not in masks:
                budget = _fisher.budget_of(method.target, session, length)
                masks[chosen] = _fisher.choose_masks(method, session, gradients[method.importance], budget)
            weights, _ = _fisher.tune(method, session, *masks[chosen])
            seconds = time.perf_counter() - start
            pruned = shrink(session.model, session.family, masks[chosen][0], weights)
            found = compare(session.task, outputs(session, pruned, None), dense, session.validation)
            figures = {"accuracy": found.compressed["accuracy"], "agreement": 1 - (found.churn or 0.0), "kl": found.kl}
            macs = encoder_macs(pruned, session.family.groups(pruned), length) / encoder_macs(
                session.model, session.groups, length
            )
            row = {"variant": name, "keep": keep, "seed": seed, **figures, "macs": macs, "seconds": seconds}
            print(row, file=sys.stderr, flush=True)
            yield row


def table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Return a Markdown table: a row per variant, accuracy / agreement / KL per keep level, means over seeds."""
    lines = [
        f"| {arguments.subset}, seeds {' '.join(map(str, arguments.seeds))} | "
        + " | ".join(f"keep {keep}" for keep in arguments.keep)
        + " |",
        "|---" * (1 + len(arguments.keep)) + "|",
    ]
    for name in arguments.variants:
        cells = []
        for keep in arguments.keep:
            rows = [row for row in results if row["variant"] == name and row["keep"] == keep]
            mean = {figure: float(np.mean([row[figure] for row in rows])) for figure in FIGURES}
            cells.append(f"{100 * mean['accuracy']:.2f} / {100 * mean['agreement']:.2f} / {mean['kl']:.4f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
