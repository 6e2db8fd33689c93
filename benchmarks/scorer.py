"""Train map scorers and hold their masks against random ones: ``python benchmarks/scorer.py --model DIR --data GLUE_DIR``.

For every seed a scorer is trained on the train texts of the tasks (``scorer: {train: {...}}`` of the method ``smp``). Of every
task it then chooses half of each layer's heads by 64 train texts, and so do the scorers given as files. What is measured is the
relation loss on held-out texts (the task's validation split, 32 to a batch), beside that of 20 random masks of the same size:
their mean, standard deviation, lowest, and how many standard deviations below the mean each mask is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from compressor.model import masked
from compressor.model.masks import Masks
from compressor.plugin import Registry, Task
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import load
from compressor.run.session import Session
from compressor_plugins.methods._head_quota import lowest_removed, quota
from compressor_plugins.methods._map_scorer import MapScorer
from compressor_plugins.methods._relations import relation_loss
from compressor_plugins.methods._scorer_files import load_scorer
from compressor_plugins.methods._scorer_training import train_scorer
from compressor_plugins.methods._sentences import Sentences, cut, draw_sentences, sentence_vectors
from compressor_plugins.methods._smp import mean_scores
from compressor_plugins.methods.smp import Smp

BATCH = 32


def main() -> None:
    """Print a Markdown table and write every figure as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="encoder, not fine-tuned")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "rte", "stsb", "sst2", "cola"])
    parser.add_argument("--measured", nargs="+", help="tasks to measure on, where these are others")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of scorers to train")
    parser.add_argument("--train", default="{}", help="options of scorer.train, as JSON")
    parser.add_argument("--scorers", nargs="*", default=[], help="files of scorers to measure too")
    parser.add_argument("--random", type=int, default=20, help="random masks")
    parser.add_argument("--rows", type=int, default=256, help="held-out texts of a task")
    parser.add_argument("--out", type=Path, required=True, help="directory for scorers and figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        session, method = opened(options, seed)
        start = time.perf_counter()
        scorer = trained(session, method)
        seconds = time.perf_counter() - start
        (session.stage / "scorer.safetensors").replace(options.out / f"scorer-{seed}.safetensors")
        rows += measure(options, session, method, {f"trained, seed {seed}": scorer}, seconds)
    if options.scorers:
        session, method = opened(options, 0)
        rows += measure(
            options, session, method, {Path(file).name: load_scorer(Path(file))[0] for file in options.scorers}
        )
    (options.out / "scorer.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


def opened(options: argparse.Namespace, seed: int) -> tuple[Session, Smp]:
    """Load the encoder, and the method with its tasks."""
    glue = [{"name": "glue", "subset": name, "path": str(Path(options.data).resolve())} for name in options.tasks]
    training = {"tasks": glue, **json.loads(options.train)}
    recipe = {
        "name": "scorer",
        "model": str(Path(options.model).resolve()),
        "task": {"name": "embedding", "corpus": "python-docs"},
        "calibration": {"samples": 128, "batch_size": BATCH},
        "seed": seed,
        "steps": [{"prune": {"method": "smp", "target": {"heads": 0.5}, "scorer": {"train": training}}}],
    }
    registry = Registry.load()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recipe.yaml"
        path.write_text(json.dumps(recipe))
        plan = compile_plan(load_recipe(path), registry)
    session = load.open_session(plan, registry, options.out / f"run-{seed}", load.resolve_device("cpu"))
    return session, cast("Smp", plan.steps[0].component)


def trained(session: Session, method: Smp) -> MapScorer:
    """Train a scorer as the method does."""
    rows = draw_sentences(method, session, session.model)
    source: Any = method.scorer
    return train_scorer(source.train, session, rows, length_normalised=method.length_normalised)


def texts(session: Session, method: Smp, task: Task, split: Any, count: int) -> Sentences:
    """Draw texts of one task; of held-out ones, so that whole batches of random lengths come out."""
    found = task.load(split, session.tokenizer)
    drawn = np.random.default_rng(0).permutation(len(found))[: count // BATCH * BATCH]
    whole = len(drawn) // BATCH * BATCH
    chosen = [cut(row) for row in found.select(drawn[:whole]).to_list()]
    return replace(draw_sentences(method, session, session.model), rows=chosen, pair=task.pairs)


def measure(
    options: argparse.Namespace,
    session: Session,
    method: Smp,
    scorers: Mapping[str, MapScorer],
    seconds: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Yield the relation loss of every scorer's masks, task by task, beside that of random masks."""
    source: Any = method.scorer
    like = source.train.tasks[0]
    tasks = [like.model_copy(update={"subset": name}) for name in options.measured or options.tasks]
    for task in tasks:
        chosen_by = texts(session, method, task, "train", 64)
        held_out = texts(session, method, task, "validation", options.rows)
        noise = losses(held_out, random_masks(held_out, options.random))
        for name, scorer in scorers.items():
            scores = mean_scores(scorer, chosen_by, length_normalised=method.length_normalised)
            (loss,) = losses(held_out, [half(held_out, scores)])
            row = {
                "scorer": name,
                "task": task.subset,
                "loss": loss,
                "random": float(np.mean(noise)),
                "deviation": float(np.std(noise, ddof=1)),
                "lowest": min(noise),
                "below": (float(np.mean(noise)) - loss) / float(np.std(noise, ddof=1)),
                "seconds": seconds,
                "keep": {group: half(held_out, scores).keep[group].int().tolist() for group in scores},
            }
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


def half(rows: Sentences, scores: Mapping[str, torch.Tensor]) -> Masks:
    """Return masks that keep half of each layer's heads."""
    return Masks({group.name: lowest_removed(scores[group.name], quota(group.units, 0.5)) for group in rows.groups})


def random_masks(rows: Sentences, count: int) -> list[Masks]:
    """Return random masks of half of each layer's heads."""
    generator = torch.Generator().manual_seed(1)
    return [half(rows, {g.name: torch.rand(g.units, generator=generator) for g in rows.groups}) for _ in range(count)]


@torch.no_grad()
def losses(rows: Sentences, masks: Sequence[Masks]) -> list[float]:
    """Return the mean relation loss over batches of every set of masks."""
    totals = np.zeros(len(masks))
    for batch in rows.batches():
        full = sentence_vectors(rows.model, batch, pair=rows.pair)
        for index, mask in enumerate(masks):
            with masked(rows.model, rows.groups, mask.keep):
                totals[index] += float(
                    relation_loss(sentence_vectors(rows.model, batch, pair=rows.pair), full, pair=rows.pair)
                )
    return [float(total) for total in totals / (len(rows.rows) // rows.batch_size)]


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row per scorer and task."""
    head = ("scorer", "task", "loss", "random", "deviation", "lowest", "below", "seconds")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{row[name]:.4f}" if isinstance(row[name], float) else str(row[name]) for name in head]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
