"""What contrast adds to CAP: ``python benchmarks/cap.py --model DIR --data GLUE_DIR --out DIR``.

Runs the pruning step of a recipe once per choice of losses and seed, each in a directory of its own below ``--out``: a killed
program goes on where it was. Prints the metric of every cut's model, on the whole validation split in torch, as the mean and the
standard deviation over the seeds, and the difference to distillation alone, paired by seed. Give ``OMP_NUM_THREADS=1`` and several
programs, with other seeds, to use several cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.pipeline import Conditions, run

ROOT = Path(__file__).parents[1]
TASK = {"name": "task", "weight": 0.1}
KD = {"name": "distillation", "weight": 0.9, "temperature": 1}
LOSSES: Mapping[str, Sequence[str] | None] = {
    "task": None,
    "KD": (),
    "KD+FiC": ("FiC",),
    "KD+SnC+FiC": ("SnC", "FiC"),
    "KD+PrC+SnC+FiC": ("PrC", "SnC", "FiC"),
}
"""The banks of every choice; None = the task's loss alone."""


def main() -> None:
    """Run what is missing and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the recipe's task")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--out", required=True, type=Path, help="directory of the runs")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "bert_mini_sst2_cap.yaml")
    parser.add_argument("--pretrained", help="encoder of PrC")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, help="default: all, PrC with --pretrained only")
    parser.add_argument("--contrast", type=json.loads, default={}, help="options of the loss contrastive, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="of recipe values")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.losses = options.losses or [
        name for name, banks in LOSSES.items() if options.pretrained or "PrC" not in (banks or ())
    ]
    found = {name: [cuts(options, name, seed) for seed in options.seeds] for name in options.losses}
    labels = [one["makes"].partition(": ")[2] for one in next(iter(found.values()))[0]]
    print("| losses | " + " | ".join(labels) + " |")
    print("|---|" + "---|" * len(labels))
    for name, runs in found.items():
        cells = [
            cell([one[cut] for one in runs], [one[cut] for one in found.get("KD", [])]) for cut in range(len(labels))
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def cell(runs: Sequence[Any], reference: Sequence[Any]) -> str:
    """Return mean and standard deviation of a metric, and the mean difference to the reference, paired."""
    values, others = ([score(run) for run in each] for each in (runs, reference))
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    differences = [one - other for one, other in zip(values, others, strict=False)]
    change = f" ({statistics.mean(differences):+.4f})" if differences else ""
    return f"{statistics.mean(values):.4f}{spread}{change}"


def score(training: Any) -> float:
    """Return the metric after one cut's training."""
    quality = training["quality"]
    return float(quality["after"][quality["metric"]])


def cuts(options: argparse.Namespace, name: str, seed: int) -> list[Any]:
    """Return the figures of every cut, of this run or of an earlier one that was finished."""
    out = options.out / f"{name}-{seed}"
    compiled = compile_plan(load_recipe(written(options, name, seed), overrides=options.overrides), Registry.load())
    if not (out / "report.json").is_file():
        run(compiled, out, Conditions(Registry.load(), torch.device(options.device)))
    report = json.loads((out / "report.json").read_text())
    if report["recipe"]["digest"] != compiled.digest:
        sys.exit(f"{out} is of another recipe: remove it, or give another --out")
    trainings: list[Any] = report["steps"][0]["metrics"]["trainings"]
    print(f"{out.name}: " + ", ".join(f"{score(one):.4f}" for one in trainings), flush=True)
    return trainings


def written(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Write a recipe with the pruning step alone and these losses; return its path."""
    recipe = yaml.safe_load(options.recipe.read_text())
    banks = LOSSES[name]
    losses: list[Any] = [{"name": "task"}] if banks is None else [TASK, KD]
    if banks:
        given = {"pretrained": options.pretrained} if "PrC" in banks and options.pretrained else {}
        losses.append({"name": "contrastive", "modules": list(banks), **given, **options.contrast})
    (step,) = [step for step in recipe["steps"] if "prune" in step]
    train = {**step["prune"]["train"], "losses": losses}
    task = {**recipe["task"], "path": options.data}
    steps = [{"prune": {**step["prune"], "train": train}}]
    path: Path = options.out / f"{name}-{seed}.yaml"
    path.write_text(yaml.safe_dump({**recipe, "model": options.model, "task": task, "seed": seed, "steps": steps}))
    return path


if __name__ == "__main__":
    main()
