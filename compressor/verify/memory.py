"""What a file needs in memory: opened and run in a process of its own, so that nothing else is counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import CompressorError
from compressor.model.runtime import SessionOptions, open_session, require_provider
from compressor.progress import track
from compressor.verify import apart
from compressor.verify.inference import call, feeds, input_types, unpadded
from compressor.verify.rounds import Shape

PATIENCE = 300
"""Seconds that opening and running one file may take."""


def measure_memory(files: Mapping[str, Path], shape: Shape, options: SessionOptions) -> dict[str, dict[str, float]]:
    """Measure each file in a fresh process.

    Args:
        files: by name.
        shape: of the inputs of the call.
        options: of the sessions.

    Returns:
        By name: ``load_seconds``, and ``session_mb`` and ``peak_mb``, by how much resident memory and its peak grew from
        before the file was opened to after one call, in MB. Empty where the system does not tell (Linux does).

    Raises:
        CompressorError: a file cannot be opened or run there, or not in time.
    """
    if not Path("/proc/self/status").exists():
        return {}
    return {name: _measured(path, shape, options) for name, path in track(files.items(), "memory")}


def _measured(path: Path, shape: Shape, options: SessionOptions) -> dict[str, float]:
    request = {"path": str(path), "shape": asdict(shape), "options": asdict(options)}
    try:
        found: dict[str, float] = apart.ask(__name__, request, patience=PATIENCE)
    except CompressorError as error:
        raise CompressorError(f"{path}: its memory cannot be measured: {error.message}", hint=error.hint) from error
    return found


def _resident(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def answer(request: Mapping[str, Any]) -> dict[str, float]:
    """Open and run one file, and return the figures: without what importing the runtime takes."""
    options = SessionOptions(**request["options"])
    require_provider(options.provider)
    before, start = _resident("VmRSS"), time.perf_counter()
    session = open_session(Path(request["path"]), options)
    seconds = time.perf_counter() - start
    ids = np.ones((request["shape"]["batch"], request["shape"]["sequence"]), np.int64)
    call(session, feeds(input_types(session), unpadded(ids)))
    after, peak = _resident("VmRSS"), _resident("VmHWM")
    return {"load_seconds": seconds, "session_mb": after - before, "peak_mb": peak - before}
