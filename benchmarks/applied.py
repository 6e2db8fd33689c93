"""Run a recipe through the command line and read its report: what benchmarks over whole runs share."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def report_of(recipe: Path, out: Path, *, model: str, overrides: Iterable[str]) -> dict[str, Any]:
    """Run ``compress apply --fresh`` and return ``report.json``; end the program where the run did not finish.

    Args:
        recipe: the file.
        out: directory of the run.
        model: checkpoint, as ``-m`` takes it.
        overrides: of recipe values, as ``--set`` takes them.
    """
    program = shutil.which("compress", path=str(Path(sys.executable).parent))
    command = [str(program), "apply", str(recipe), "-m", model, "-o", str(out), "--fresh"]
    command += [f"--set={override}" for override in overrides]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode not in {0, 1}:  # 1: a gate failed, and the figures are there
        sys.exit(done.returncode)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report
