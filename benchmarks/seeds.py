"""Run a recipe over several seeds and print what each gave, and the mean: ``python benchmarks/seeds.py RECIPE -m MODEL``.

Each seed draws its own calibration rows. Figures are those of the exported ONNX file in onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from applied import report_of


def main() -> None:
    """Run every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="directory for the runs' directories")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = [measure(options, seed) for seed in options.seeds]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run one seed through the command line; return its figures."""
    out = options.runs / f"{options.recipe.stem}-{seed}"
    overrides = [*options.overrides, f"seed={seed}"]
    report = report_of(options.recipe, out, model=options.model, overrides=overrides)
    quality, macs = report["quality"], report["model"]["encoder_macs"]
    latency = {
        f"{row['batch']}x{row['sequence']}": row["ratio"]
        for row in report["latency"]
        if row["model"] == "compressed" and not row["slow_fusion"]
    }
    return {
        "seed": seed,
        "metric": quality["metric"],
        "dense": quality["dense"][quality["metric"]],
        "compressed": quality["compressed"][quality["metric"]],
        "kl": quality["kl"],
        "agreement": None if quality["churn"] is None else 1 - quality["churn"],
        "macs_kept": macs["compressed"] / macs["dense"],
        "macs_length": macs["sequence"],
        "latency_ratio": latency,
        "prune_seconds": next(step["seconds"] for step in report["steps"] if step["slug"].endswith("prune")),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print one line per seed and the mean."""
    shapes = list(rows[0]["latency_ratio"])
    print(f"{'seed':>5} {'dense':>7} {rows[0]['metric']:>9} {'KL':>7} {'agree':>6} {'MACs':>7} {'prune s':>8}", *shapes)
    for row in rows:
        ratios = " ".join(
            f"{row['latency_ratio'][s]['value']:.3f} [{row['latency_ratio'][s]['lower']:.3f}, "
            f"{row['latency_ratio'][s]['upper']:.3f}]"
            for s in shapes
        )
        fidelity = " ".join(f"{row[key] or float('nan'):>6.4f}" for key in ("kl", "agreement"))
        print(
            f"{row['seed']:>5} {row['dense']:>7.4f} {row['compressed']:>9.4f} {fidelity} {row['macs_kept']:>7.4f} "
            f"{row['prune_seconds']:>8.1f} {ratios}"
        )
    values = [row["compressed"] for row in rows]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    print(f"mean {statistics.mean(values):.4f}, standard deviation {spread:.4f} over {len(values)} seeds")


if __name__ == "__main__":
    main()
