"""Compare ways to zero weights without training: ``python benchmarks/patterns.py --model DIR --data GLUE_DIR``.

For every method and pattern: the metric of the exported ONNX file in onnxruntime, KL(dense || pruned) and agreement with the
dense predictions on the whole validation split, the zeros counted in the file's own weights, and seconds. A method is a
name and, behind a colon, its options as JSON: ``one_shot``, ``'sparsegpt:{"permute": true}'``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from training_free import opened

from compressor.model.artifact import file_sparsity
from compressor.model.outputs import OUTPUT_NAMES
from compressor.model.runtime import SessionOptions, open_session
from compressor.plugin import Exporter, PruningMethod, Registry
from compressor.run.calls import NamedFamily
from compressor.run.data import collate
from compressor.run.pruning import applied
from compressor.run.session import Session
from compressor.verify.evaluate import Quality, compare, onnx_outputs

DEFAULT = (
    "one_shot",
    'one_shot:{"permute": true}',
    'one_shot:{"criterion": "wanda", "pruning_scope": "row"}',
    'one_shot:{"criterion": "wanda"}',
    "sparsegpt",
    'sparsegpt:{"permute": true}',
)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--patterns", nargs="+", default=["2:4", "1x1"])
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--methods", nargs="+", default=DEFAULT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    registry = Registry.load()
    print("| method | pattern | seed | metric (dense) | KL | agreement | zeros in the file | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        session = opened(options, seed, registry)
        dense, _ = exported(session, SimpleNamespace(model=session.model), registry)
        for pattern in options.patterns:
            for method in options.methods:
                if "permute" in method and ":" not in pattern:
                    continue
                found, zeros, seconds = measure(session, (method, pattern, options.sparsity), dense, registry)
                figures = f"{found.compressed[found.metric]:.4f} ({found.dense[found.metric]:.4f}) | {found.kl:.4f}"
                figures += f" | {1 - (found.churn or 0.0):.4f} | {zeros['ratio']:.4f} | {seconds:.1f}"
                print(f"| {method} | {pattern} | {seed} | {figures} |", flush=True)


def measure(
    session: Session, asked: tuple[str, str, float], dense: Any, registry: Registry
) -> tuple[Quality, dict[str, float], float]:
    """Return how the pruned model differs from the dense one, the zeros of its file, and the seconds of pruning."""
    (name, _, options), pattern, sparsity = asked[0].partition(":"), asked[1], asked[2]
    given = {"pattern": pattern, "target": {"sparsity": sparsity}, **(json.loads(options) if options else {})}
    declared = registry.get("method", name).model_validate(given, context={"registry": registry})
    start = time.perf_counter()
    pruned = cast("PruningMethod", declared).prune(session)
    seconds = time.perf_counter() - start
    outputs, zeros = exported(session, applied(session, NamedFamily(session.family, name), pruned), registry)
    return compare(session.task, outputs, dense, session.validation), zeros, seconds


def exported(session: Session, result: Any, registry: Registry) -> tuple[Any, dict[str, float]]:
    """Return what the exported file of a model answers on the validation rows, and its zeros."""
    exporter = cast("Exporter", registry.get("exporter", "onnx")())
    names = {"input_names": session.input_names, "output_names": OUTPUT_NAMES[session.task.head]}
    with tempfile.TemporaryDirectory() as directory:
        path = exporter.export(result.model, Path(directory) / "model.onnx", **names).path
        outputs = onnx_outputs(
            open_session(path, SessionOptions(threads=0)),
            session.validation,
            task_output=session.task.output,
            collate=partial(collate, tokenizer=session.tokenizer),
        )
        return outputs, file_sparsity(path)


if __name__ == "__main__":
    main()
