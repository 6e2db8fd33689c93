"""Ask for latencies and see what the final files take: ``python benchmarks/latency_target.py RECIPE -m MODEL --shapes 1x128``.

The recipe's steps are prune, export and verify, and the prune step has a ``target.latency``. Every asked ratio and shape is one run of the whole pipeline; the
table prints, for the exported file in onnxruntime, what was asked, what the latency table predicted, and what was
measured against the dense file in interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from applied import report_of


def main() -> None:
    """Run every target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.8, 0.6, 0.4])
    parser.add_argument("--shapes", nargs="+", default=["1x128"], metavar="BATCHxTOKENS")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/latency"), help="directory for the runs' directories")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = [measure(options, shape, target) for shape in options.shapes for target in options.targets]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def measure(options: argparse.Namespace, shape: str, target: float) -> dict[str, Any]:
    """Run one target through the command line; return its figures."""
    out = options.runs / f"{options.recipe.stem}-{shape}-{target}"
    batch, sequence = shape.split("x")
    given = {"latency": target, "batch": batch, "sequence": sequence}
    overrides = [f"steps.0.prune.target.{name}={value}" for name, value in given.items()]
    overrides += [f"steps.2.verify.{name}={given[name]}" for name in ("batch", "sequence")]
    for override in options.overrides:
        overrides.append(override)
        for name in ("threads", "provider"):  # measured as predicted
            if override.startswith(f"steps.0.prune.target.{name}="):
                overrides.append(f"steps.2.verify.{name}={override.partition('=')[2]}")
    report = report_of(options.recipe, out, model=options.model, overrides=overrides)
    metrics = report["steps"][0]["metrics"]
    row = next(row for row in report["latency"] if row["model"] == "compressed" and not row["slow_fusion"])
    metric = report["quality"]["metric"]
    return {
        "shape": shape,
        "target": metrics["latency_target"],
        "measured": row["ratio"],
        "control": row["control"],
        "macs_kept": metrics["macs_kept"],
        metric: report["quality"]["compressed"][metric],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table."""
    metric = list(rows[0])[-1]
    print(f"| shape | asked | predicted | measured | off by | A/A | MACs | {metric} |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        target, ratio = row["target"], row["measured"]
        interval = f"{ratio['value']:.3f} [{ratio['lower']:.3f}, {ratio['upper']:.3f}]"
        off = f"{100 * (ratio['value'] / target['asked'] - 1):+.1f} %"
        print(
            f"| {row['shape']} | {target['asked']:.2f} | {target['predicted']:.3f} | {interval} | {off} | "
            f"{row['control']['value']:.3f} | {row['macs_kept']:.3f} | {row[metric]:.4f} |"
        )


if __name__ == "__main__":
    main()
