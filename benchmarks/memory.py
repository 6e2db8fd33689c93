"""Peak memory of a pruning method beyond what the session takes: ``python benchmarks/memory.py --model DIR --data GLUE_DIR``.

A process per number of calibration rows, because a peak is a process's own. Resident memory, CPU only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import cast

from training_free import opened

from compressor.model.costs import parameter_bytes
from compressor.plugin import PruningMethod, Registry


def main() -> None:
    """Print a line per number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint fine-tuned on the subset")
    parser.add_argument("--data", required=True, help="directory of GLUE files")
    parser.add_argument("--subset", default="mrpc")
    parser.add_argument("--method", default="obs")
    parser.add_argument("--keep", type=float, default=0.4)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options, options.inside)))
        return
    for rows in options.rows:
        command = [sys.executable, *sys.argv, "--inside", str(rows)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def measure(options: argparse.Namespace, rows: int) -> dict[str, float]:
    """Return the peaks before and after the method ran, and the model's size, in megabytes."""
    registry = Registry.load()
    options.samples, options.device = rows, "cpu"
    session = opened(options, 0, registry)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    method = registry.get("method", options.method).model_validate({"target": {"macs": options.keep}})
    cast("PruningMethod", method).prune(session)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "rows": rows,
        "model_mb": parameter_bytes(session.model) / 1e6,
        "before_mb": round(before),
        "peak_mb": round(after),
        "beyond_mb": round(after - before),
    }


if __name__ == "__main__":
    main()
