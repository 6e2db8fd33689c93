"""What this machine's CPU is: its name, and the features that matrix kernels are chosen by."""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")
"""Features that matrix kernels are chosen by."""
EIGHT_BIT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""Features that multiply 8-bit numbers without sums of 16 bits, which saturate."""


def cpu_fields() -> dict[str, str]:
    """Return the fields of the first core that Linux lists; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = text.split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_name() -> str:
    """Return the model's name, or the architecture where nothing tells it."""
    return cpu_fields().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Return those of ``FLAGS`` that the CPU has; empty where they cannot be read."""
    fields = cpu_fields()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return [flag for flag in FLAGS if flag in flags]


def saturates(features: Collection[str]) -> bool:
    """Tell whether a CPU of such features adds products of 8-bit numbers up in 16 bits: False where they are not known."""
    return bool(features) and not EIGHT_BIT & set(features)
