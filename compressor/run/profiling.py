"""Profile a checkpoint, without a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from compressor.errors import InputError
from compressor.model import checkpoint, max_positions
from compressor.model.latency_table import Workload
from compressor.model.runtime import require_provider
from compressor.model.shapes import FIELD
from compressor.plugin.registry import Registry
from compressor.run.latency import Request, default_exporter, latency_table
from compressor.run.load import failures_named, families
from compressor.verify.environment import environment
from compressor.verify.rounds import Protocol
from compressor.verify.slow_widths import slow_widths


def profile_model(model: str, workload: Workload, *, rounds: int, fresh: bool) -> dict[str, Any]:
    """Profile a checkpoint.

    Args:
        model: a directory, or a model of the hub.
        workload: batch, length, threads and provider.
        rounds: of the measurement.
        fresh: measure, whatever the cache has.

    Returns:
        Plain data: ``profile`` and ``environment``.

    Raises:
        InputError: the checkpoint or the length cannot be used.
        SetupError: onnxruntime or the provider is missing.
    """
    require_provider(workload.provider)
    registry = Registry.load()
    directory = checkpoint.local_directory(model)
    with failures_named(registry):
        loaded: Any = checkpoint.load(directory, by_type := families(registry))
    longest = max_positions(loaded)
    if workload.sequence > longest:
        raise InputError(f"{model}: a sequence of {workload.sequence} tokens: the model has {longest} positions")
    request = Request(
        loaded,
        by_type[loaded.config.model_type],
        default_exporter(registry),
        workload,
        Protocol(rounds=rounds, untuned=False),
    )
    measured_on = environment()  # before the load average is our own
    found = latency_table(request, fresh=fresh)
    table = found.table
    return {
        "profile": {
            "model": model,
            "pruned": hasattr(loaded.config, FIELD),
            "table": asdict(table),
            "lowest_ratio": table.lowest_ratio,
            "blocks_ms": table.whole_ms,
            "check_predicted_ms": table.predict(table.check.counts),
            "slow": [asdict(width) for width in slow_widths(table)],
            "measured": found.measured,
            "path": str(found.path),
        },
        "environment": measured_on,
    }
