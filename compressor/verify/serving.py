"""Which file to serve, and with which session options: the fastest of those that are good enough, as measured here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from compressor.model.runtime import SLOW_FUSION, session_config
from compressor.verify.latency import LatencyRow

Configuration = tuple[str, bool]
"""A model's name, and whether the slow fusion is on."""


def fastest(rows: Sequence[LatencyRow], models: Collection[str]) -> Configuration | None:
    """Return the configuration with the lowest median latency, geometric mean over all shapes and thread counts."""
    times: dict[Configuration, list[float]] = {}
    for row in rows:
        if row.model in models:
            times.setdefault((row.model, row.slow_fusion), []).append(row.clocked_ms["p50"])
    return min(times, key=lambda pair: float(np.mean(np.log(times[pair]))), default=None)


def recommend(rows: Sequence[LatencyRow], files: Mapping[str, str], *, rejected: Mapping[str, str]) -> dict[str, Any]:
    """Say which file to serve on the provider it was measured on, and why.

    Args:
        rows: of all models.
        files: names of the files that can be served, by model.
        rejected: why a model is not to be served, by model.

    Returns:
        Plain data: ``model``, ``file``, ``provider``, ``session_config`` (entries for onnxruntime's session options),
        ``gained`` (whether it is worth serving instead of the dense model) and ``why`` (sentences).
    """
    good = [model for model in files if model not in rejected]
    chosen = fastest(rows, good or list(files))
    if chosen is None:
        raise ValueError(f"none of {', '.join(files.values())} was measured")
    model, slow_fusion = chosen
    shapes = len({(row.batch, row.sequence, row.threads) for row in rows})
    mean = f" (geometric mean over {shapes} inputs and thread counts)" if shapes > 1 else ""
    why = [f"{files[model]} had the lowest median latency{mean} of {_listed([files[one] for one in good or files])}"]
    lost = {one: reason for one, reason in rejected.items() if one in files}
    if good:
        why += [f"{files[one]} is not served: {reason}" for one, reason in lost.items()]
    else:
        why += [f"{files[one]}: {reason}" for one, reason in lost.items()]
    gained = bool(good) and any(_faster(row) for row in rows if row.model in good)
    tried = [row for row in rows if (row.model, row.slow_fusion) == chosen]
    why = [*_against_it(files[model], tried, good=bool(good), gained=gained), *why, *_fusion_note(rows, model)]
    provider = rows[0].provider
    config = session_config(provider, slow_fusion=slow_fusion)
    named = {"model": model, "file": files[model], "provider": provider, "session_config": config}
    return {**named, "gained": gained, "why": why}


def _faster(row: LatencyRow) -> bool:
    """Tell whether a call takes less time than with the best dense file, beyond the noise."""
    return row.beside_dense.upper < 1


def _against_it(file: str, rows: Sequence[LatencyRow], *, good: bool, gained: bool) -> list[str]:
    """Say what speaks against serving a file, given its rows under the options it would be served with."""
    if not good:
        return ["no file is within the gate on the metric: serve the dense model"]
    slow = [row for row in rows if not _faster(row)]
    told = ", ".join(
        f"{row.beside_dense.value:.3f} [{row.beside_dense.lower:.3f}, {row.beside_dense.upper:.3f}] at {row.setting}"
        for row in slow
    )
    if not gained:
        words = "no file here is faster than the best dense one beyond the noise, so serve the dense model"
        return [
            f"nothing is gained: {words}, unless size or memory is what counts; the time of {file} by that one's is {told}"
        ]
    where = f"there are inputs where {file} is not faster than the best dense file beyond the noise; its time by that one's: {told}"
    return [where] if slow else []


def _fusion_note(rows: Sequence[LatencyRow], model: str) -> list[str]:
    """Say what onnxruntime's default costs this model, at the first shape and thread count."""
    found = {row.slow_fusion: row for row in reversed(rows) if row.model == model}
    if len(found) == 1:
        return []
    on, off = (found[slow].clocked_ms for slow in (True, False))
    shape = f"{found[False].batch} x {found[False].sequence}"
    return [
        f"with onnxruntime's {SLOW_FUSION} on, its default, a call takes {on['p50'] / off['p50']:.2f} times as long at {shape}"
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
