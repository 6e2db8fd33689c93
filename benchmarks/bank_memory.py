"""How much memory banks take: ``python benchmarks/bank_memory.py --model DIR --data GLUE_DIR``.

Trains for a few steps on the whole of SST-2 with distillation, and in another process with contrast against the dense model and
eight snapshots as well; prints the largest anonymous resident memory of both (Linux's ``RssAnon``), loading included, the memory of
mapped files, and the size of the banks. The snapshots are of models whose sublayers are empty and whose embeddings differ:
they are encoded fast, and their banks are as large as any other's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from compressor.model import Masks, shrink
from compressor.plugin import Registry, Training
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.load import open_session
from compressor.run.session import Session
from compressor.train import CHECKPOINTS, TrainingRun
from compressor_plugins.losses.contrastive import Contrastive
from compressor_plugins.losses.distillation import Distillation

SNAPSHOTS = 8
FIELDS = ("RssAnon", "RssFile")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on SST-2")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--inside", choices=["distillation", "contrastive"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measured(options)))
        return
    print("| losses | largest RssAnon, MB | RssFile | banks |")
    print("|---|---|---|---|")
    found = []
    for name in ("distillation", "contrastive"):
        command = [sys.executable, *sys.argv, "--inside", name]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        found.append(one["RssAnon"])
        print(
            f"| distillation{', contrastive' * (name != 'distillation')} | "
            + " | ".join(f"{one[k]:.0f}" for k in one)
            + " |"
        )
    print(f"\ngrowth of the largest RssAnon: {found[1] - found[0]:.0f} MB")


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Return the largest memory of a training, and the size of the banks on disk, MB."""
    contrast = Contrastive(modules=("SnC", "FiC"), max_snapshots=SNAPSHOTS)
    with tempfile.TemporaryDirectory() as directory, watched() as largest:
        session = opened(options, Path(directory))
        train(session, options.steps, Distillation(), *([contrast] if options.inside == "contrastive" else []))
        banks = sum(path.stat().st_size for path in (session.stage / CHECKPOINTS).rglob("*.npy")) / 1e6
    return {**largest, "banks": banks}


def opened(options: argparse.Namespace, directory: Path) -> Session:
    """Return a session on the whole of SST-2."""
    task = {"name": "glue", "subset": "sst2", "max_length": 64, "path": options.data}
    recipe = {"name": "banks", "model": options.model, "task": task, "steps": [{"train": {"max_steps": 1}}]}
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    registry = Registry.load()
    return open_session(compile_plan(load_recipe(path), registry), registry, directory, torch.device("cpu"))


def train(session: Session, steps: int, *losses: Any) -> None:
    """Train for some steps, with snapshots of eight models taken before."""
    run = TrainingRun(session, Training(max_steps=steps, losses=losses, batch_size=16, learning_rate=1e-5))
    empty = Masks({group.name: torch.zeros(group.units, dtype=torch.bool) for group in session.groups})
    for number in range(SNAPSHOTS if len(losses) > 1 else 0):
        student: Any = shrink(session.model, session.family, empty)
        student.get_input_embeddings().weight.data.mul_(1 + 0.1 * number)
        for term in run.objective.terms.terms:
            term.run.snapshot(student)
    run.fit()


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Watch this process's resident memory, every 50 ms; the largest of each kind, MB, once the block is left."""
    largest = dict.fromkeys(FIELDS, 0.0)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in largest:
                    largest[name] = max(largest[name], int(value.split()[0]) * 1024 / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield largest
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
