"""Compare ways to choose layers to drop: ``python benchmarks/drop_layers.py --model DIR --data GLUE_DIR``.

Greedy and single leave-one-out of ``drop-layers`` against dropping the top layers; for every number of layers kept: the
metric of the exported ONNX file in onnxruntime, KL(dense || compressed) and agreement with the dense predictions on the
whole validation split. Nothing is re-fitted. One greedy search gives all: its first round is the single measurement.
"""

from __future__ import annotations

import argparse
from typing import Any, cast

import numpy as np
from training_free import opened, outputs

from compressor.model import Masks, shrink
from compressor.plugin import Exporter, PruningMethod, Registry
from compressor.run.session import Session
from compressor.verify.evaluate import Quality, compare


def main() -> None:
    """Print a Markdown table per seed, below it the scores of every round and the seconds."""
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
    for seed in options.seeds:
        measure(options, seed)


def measure(options: argparse.Namespace, seed: int) -> None:
    """Print the figures of every order and number of layers on the calibration rows of one seed."""
    registry = Registry.load()
    session = opened(options, seed, registry)
    exporter = cast("Exporter", registry.get("exporter", "onnx")())
    dense = outputs(session, session.model, exporter)
    layers = len(session.groups) // 2
    target = {"layers": min(options.keep) / layers}
    method = cast("PruningMethod", registry.get("method", "drop-layers").model_validate({"target": target}))
    metrics = method.prune(session).metrics
    known: dict[frozenset[int], Quality] = {}
    print("| search | keep | seed | layers kept | metric | KL | agreement |\n|---|---|---|---|---|---|---|")
    for search, order in orders(metrics, layers).items():
        for keep in options.keep:
            dropped = frozenset(order[: layers - keep])
            if dropped not in known:
                known[dropped] = compared(session, exporter, dense, dropped)
            found = known[dropped]
            kept = [layer for layer in range(layers) if layer not in dropped]
            figures = f"{found.compressed[found.metric]:.4f} | {found.kl:.4f} | {1 - (found.churn or 0.0):.4f}"
            print(f"| {search} | {keep} | {seed} | {kept} | {figures} |", flush=True)
    print(f"\n{metrics['layer_scores']}\n{metrics['seconds']}")


def orders(metrics: Any, layers: int) -> dict[str, list[int]]:
    """Return the order in which each search drops layers."""
    rounds = [sorted(scores, key=scores.__getitem__) for scores in metrics["layer_scores"]]
    return {
        "greedy": [int(order[0]) for order in rounds],
        "once": [int(layer) for layer in rounds[0]],
        "top layers": list(range(layers))[::-1],
    }


def compared(session: Session, exporter: Exporter, dense: np.ndarray, dropped: frozenset[int]) -> Quality:
    """Return how the model without these layers differs from the dense one."""
    smaller = shrink(session.model, session.family, Masks({}), dropped_layers=dropped)
    return compare(session.task, outputs(session, smaller, exporter), dense, session.validation)


if __name__ == "__main__":
    main()
