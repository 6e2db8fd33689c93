"""Compare pruning methods that need no training: ``python benchmarks/training_free.py --model DIR --data GLUE_DIR``.

For every method, keep level and seed: the metric of the exported ONNX file in onnxruntime, KL(dense || compressed) and
agreement with the dense predictions on the whole validation split, encoder MACs got, seconds (counting included), and the calibration cost
in units of F = one dense forward over the calibration rows: MAC-weighted forwards plus backwards over activations,
with Gram matrices and solves apart. Counts are of what ran, not of a clock.

With ``--together`` a method prunes for all keep levels in one call, as ``compress sweep`` lets it; its costs and seconds are
then those of all levels, on every row. A method is a name and, behind a colon, its options: ``fisher`` or ``'kprune:{"refresh": 0, "measure": "curvature"}'``.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from macs import PASSES, counting

from compressor.model.costs import encoder_macs
from compressor.model.outputs import OUTPUT_NAMES, raw_output
from compressor.model.runtime import SessionOptions, open_session
from compressor.model.surgery import shrink
from compressor.plugin import Exporter, Pruned, PruningMethod, Registry, Target
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run import load
from compressor.run.data import collate
from compressor.run.session import Session
from compressor.verify.evaluate import compare, onnx_outputs, torch_outputs

FIGURES = ("kl", "agreement", "macs", "forward", "backward", "cost", "algebra", "seconds", "peak_mb")


def main() -> None:
    """Print a Markdown table per keep level and write every row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--methods", nargs="+", default=["fisher", "kprune"])
    parser.add_argument("--keep", type=float, nargs="+", default=[0.6, 0.4, 0.2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sequence", type=float, help="tokens that MACs are counted at; default: calibration mean")
    parser.add_argument("--together", action="store_true", help="all keep levels in one call of the method")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--runtime", choices=["onnx", "torch"], default="onnx", help="where the metric is computed")
    parser.add_argument("--json", type=Path, help="write every row here")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for row in measure(options, seed):
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def measure(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of every method and keep level on the calibration rows of one seed."""
    registry = Registry.load()
    session = opened(options, seed, registry)
    exporter = cast("Exporter", registry.get("exporter", "onnx")()) if options.runtime == "onnx" else None
    dense = outputs(session, session.model, exporter)
    unit = dense_forward(session)
    for text in options.methods:
        name, _, given = text.partition(":")
        together = [options.keep] if options.together else [[keep] for keep in options.keep]
        for keeps in together:
            targets = [target_of(keep, options) for keep in keeps]
            asked = {**json.loads(given or "{}"), "target": targets[0]}
            method = cast("PruningMethod", registry.get("method", name).model_validate(asked))
            for keep, (costs, smaller) in zip(keeps, pruned(session, method, targets, unit), strict=True):
                found = compare(session.task, outputs(session, smaller, exporter), dense, session.validation)
                yield {
                    "method": text,
                    "seed": seed,
                    "keep": keep,
                    "rows": found.rows,
                    "metric": found.metric,
                    "dense": found.dense[found.metric],
                    "compressed": found.compressed[found.metric],
                    "kl": found.kl,
                    "agreement": None if found.churn is None else 1 - found.churn,
                    **costs,
                }


def target_of(keep: float, options: argparse.Namespace) -> Target:
    """Return the target on MACs."""
    return Target(macs=keep, **({"sequence": options.sequence} if options.sequence else {}))


def opened(options: argparse.Namespace, seed: int, registry: Registry) -> Session:
    """Load the checkpoint and draw the calibration rows of one seed."""
    recipe = {
        "name": "training-free",
        "model": str(Path(options.model).resolve()),
        "task": {"name": "glue", "subset": options.subset, "path": str(Path(options.data).resolve())},
        "calibration": {"samples": options.samples, "batch_size": options.batch_size},
        "seed": seed,
        "steps": [{"prune": {"method": "fisher", "target": {"macs": 0.5}}}, {"export": {}}, {"verify": {}}],
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recipe.yaml"
        path.write_text(json.dumps(recipe))
        plan = compile_plan(load_recipe(path), registry)
        return load.open_session(plan, registry, Path(directory), load.resolve_device(options.device))


def dense_forward(session: Session) -> int:
    """Return F in MACs: what one forward of the dense model over the calibration rows takes."""
    with torch.no_grad(), counting() as counter:
        for batch in session.calibration.batches(session.device):
            raw_output(session.model, batch)
    return counter.macs["forward"]


def pruned(
    session: Session, method: PruningMethod, targets: list[Target], unit: int
) -> list[tuple[dict[str, Any], torch.nn.Module]]:
    """Run a method for all targets; return, for each, what all of them cost together, and the smaller model."""
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    with counting() as counter:
        found = list(method.prune_all(session, targets))
    if session.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    costs = {name: count / unit for name, count in counter.macs.items()}
    costs |= {
        "cost": sum(costs[name] for name in PASSES),
        "seconds": seconds,
        "peak_mb": peak_megabytes(session.device),
    }
    return [sized(session, one, costs) for one in found]


def sized(session: Session, found: Pruned, costs: dict[str, Any]) -> tuple[dict[str, Any], torch.nn.Module]:
    """Return the costs with what the masks keep, and the smaller model."""
    smaller = shrink(session.model, session.family, found.masks, found.weights, dropped_layers=found.dropped_layers)
    length = found.metrics["sequence"]
    dense = encoder_macs(session.model, session.groups, length)
    kept = {name: found.metrics.get(name) for name in ("heads_kept", "neurons_kept")}
    return {"macs": encoder_macs(smaller, session.family.groups(smaller), length) / dense, **costs, **kept}, smaller


def peak_megabytes(device: torch.device) -> float:
    """Return the most memory that was in use: on the GPU since the method started, on the CPU since the program did."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def outputs(session: Session, model: torch.nn.Module, exporter: Exporter | None) -> np.ndarray:
    """Return z of every validation row: of the exported file in onnxruntime, or of the model itself."""
    padded = partial(collate, tokenizer=session.tokenizer)
    if exporter is None:
        return torch_outputs(model, session.validation, task_output=session.task.output, collate=padded)
    with tempfile.TemporaryDirectory() as directory:
        artifact = exporter.export(
            model,
            Path(directory) / "model.onnx",
            input_names=session.input_names,
            output_names=OUTPUT_NAMES[session.task.head],
        )
        return onnx_outputs(
            open_session(artifact.path, SessionOptions(threads=0)),
            session.validation,
            task_output=session.task.output,
            collate=padded,
        )


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row per method and keep level, means over seeds."""
    metric, dense = rows[0]["metric"], rows[0]["dense"]
    head = ["method", "keep", "seeds", f"{metric} (dense {dense:.4f})", "lowest", "highest", *FIGURES]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method, keep in dict.fromkeys((row["method"], row["keep"]) for row in rows):
        own = [row for row in rows if (row["method"], row["keep"]) == (method, keep)]
        values = [row["compressed"] for row in own]
        cells = [method, str(keep), str(len(own)), *(f"{pick(values):.4f}" for pick in (np.mean, min, max))]
        for figure in FIGURES:
            known = [row[figure] for row in own if row[figure] is not None]
            cells.append(f"{np.mean(known):.{1 if figure in {'seconds', 'peak_mb'} else 4}f}" if known else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
