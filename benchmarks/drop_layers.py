"""Compare ways to choose layers to drop: ``python benchmarks/drop_layers.py --model DIR --data GLUE_DIR``.

Greedy and single leave-one-out of ``drop-layers`` against dropping the top layers; for every number of layers kept: the
metric of the exported ONNX file in onnxruntime, KL(dense || compressed) and agreement with the dense predictions on the
whole validation split, and the search's cost in dense forwards over the calibration rows. Nothing is re-fitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, cast

from macs import counting
from training_free import dense_forward, opened, outputs

from compressor.model import Masks, shrink
from compressor.plugin import Exporter, PruningMethod, Registry
from compressor.run.session import Session
from compressor.verify.evaluate import compare

FIGURES = ("kl", "agreement", "accuracy", "cost")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--keep", type=int, nargs="+", default=[5, 4, 3], help="layers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    print(f"| search | keep | seed | layers kept | {' | '.join(FIGURES)} |\n|{'---|' * (4 + len(FIGURES))}")
    for seed in options.seeds:
        for row in measure(options, seed):
            figures = (f"{row[figure]:.4f}" for figure in FIGURES)
            print(f"| {row['search']} | {row['keep']} | {seed} | {row['layers']} | {' | '.join(figures)} |", flush=True)


def measure(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of every search and number of layers on the calibration rows of one seed."""
    registry = Registry.load()
    session = opened(options, seed, registry)
    exporter = cast("Exporter", registry.get("exporter", "onnx")())
    dense, unit = outputs(session, session.model, exporter), dense_forward(session)
    layers = 1 + max(group.index for group in session.groups)
    for search in ("greedy", "once", "top"):
        for keep in options.keep:
            with counting() as counter:
                dropped = tuple(range(keep, layers)) if search == "top" else _chosen(session, registry, search, keep)
            smaller = shrink(session.model, session.family, Masks({}), dropped_layers=dropped)
            found = compare(session.task, outputs(session, smaller, exporter), dense, session.validation)
            yield {
                "search": search,
                "keep": keep,
                "layers": [layer for layer in range(layers) if layer not in dropped],
                "kl": found.kl,
                "agreement": 1 - (found.churn or 0.0),
                "accuracy": found.compressed[found.metric],
                "cost": sum(counter.macs.values()) / unit,
            }


def _chosen(session: Session, registry: Registry, search: str, keep: int) -> tuple[int, ...]:
    layers = 1 + max(group.index for group in session.groups)
    options = {"target": {"layers": keep / layers}, "search": search}
    method = cast("PruningMethod", registry.get("method", "drop-layers").model_validate(options))
    return method.prune(session).dropped_layers


if __name__ == "__main__":
    main()
