"""Interleaved rounds in a fresh process: the protocol of ``rounds.py``, away from what the caller's process holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.model.runtime import SessionOptions
from compressor.verify import apart, rounds
from compressor.verify.rounds import Protocol, Shape, Timings
from compressor.verify.statistics import Resampling


def interleave(
    files: Mapping[str, Path],
    shapes: Sequence[Shape],
    *,
    options: SessionOptions,
    protocol: Protocol,
    untuned: Collection[str] = (),
) -> dict[Shape, Timings]:
    """Do what ``rounds.interleave`` does, in a process of its own.

    Raises:
        CompressorError: what ``rounds.interleave`` raises; or the process ended early.
    """
    request = {
        "files": {name: str(path) for name, path in files.items()},
        "shapes": [asdict(shape) for shape in shapes],
        "options": asdict(options),
        "rounds": protocol.rounds,
        "vocabulary": protocol.vocabulary,
        "seed": protocol.resampling.seed,
        "untuned": list(untuned),
    }
    found = apart.ask(__name__, request)
    return {shape: _timings(one) for shape, one in zip(shapes, found, strict=True)}


def answer(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the timings of every shape as plain data."""
    protocol = Protocol(
        rounds=request["rounds"], vocabulary=request["vocabulary"], resampling=Resampling(seed=request["seed"])
    )
    shapes = [Shape(**shape) for shape in request["shapes"]]
    timings = rounds.interleave(
        {name: Path(path) for name, path in request["files"].items()},
        shapes,
        options=SessionOptions(**request["options"]),
        protocol=protocol,
        untuned=request["untuned"],
    )
    return [_plain(timings[shape]) for shape in shapes]


def _plain(timings: Timings) -> dict[str, Any]:
    turns = [{name: times.tolist() for name, times in turn.items()} for turn in timings.rounds]
    return {"rounds": turns, "loads": timings.loads.tolist()}


def _timings(plain: Mapping[str, Any]) -> Timings:
    turns = [{name: np.array(times) for name, times in turn.items()} for turn in plain["rounds"]]
    return Timings(turns, np.array(plain["loads"]))
