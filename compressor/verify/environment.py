"""What a measurement was made on: enough to judge it, nothing that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compressor.cpu import cpu_features, cpu_name

PACKAGES = (
    "compressor-onnx",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Return CPU, cores, load, Python, platform and the versions of the packages that matter."""
    return {
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide what a run computes."""
    return {name: found for name in PACKAGES if (found := _version(name))}


@cache
def _version(name: str) -> str | None:
    """Return what is installed; reading all metadata takes longer than the rest of an environment, and stays the same."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def physical_cores() -> int | None:
    """Return how many cores there are, two threads of one core counted once; None where Linux does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    blocks = [
        dict(re.findall(r"^(physical id|core id)\s*: (\d+)$", part, flags=re.MULTILINE)) for part in text.split("\n\n")
    ]
    return len({tuple(sorted(block.items())) for block in blocks if block}) or None


def cpu_quota() -> float | None:
    """Return how many cores' time the container may use, as its control group says; None where nothing limits it."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
