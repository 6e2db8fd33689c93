"""What a latency depends on in the machine, as a key: two machines must never share a measurement."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from compressor.cpu import cpu_fields
from compressor.verify.environment import environment

CPU_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "cache size")


def hardware(provider: str) -> dict[str, Any]:
    """Return what identifies the machine as far as latency goes; nothing in it names the machine or its owner.

    Args:
        provider: the GPU counts only where it computes.
    """
    fields, known = cpu_fields(), environment()
    flags = fields.get("flags") or fields.get("Features") or ""
    found: dict[str, Any] = {
        "machine": _digest(_machine_id()),
        "cpu": {"name": known["cpu"], **{name: fields[name] for name in CPU_FIELDS if name in fields}},
        "cpu_flags": _digest(" ".join(sorted(flags.split()))),
        "cores": known["cores"],
        "usable_cores": known["usable_cores"],
        "platform": known["platform"],
    }
    return found if provider == "cpu" else {**found, "gpus": gpus()}


def gpus() -> dict[str, Any]:
    """Return the names and drivers of the NVIDIA GPUs, in order, and which of them a process is shown."""
    tool = shutil.which("nvidia-smi")
    lines: list[str] = []
    if tool:
        query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603 - no input of a user's
        lines = answer.stdout.splitlines()
    return {"devices": lines, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(f"compressor latency {text}".encode()).hexdigest()[:16]
