"""Latency tables: measured once per machine and model shape, then read from the run directory or from a cache.

The key of a table is everything its numbers depend on. Its hash names the file, the key itself stands in the file and
is compared when the file is read. A run keeps the tables it used: resumed, it decides as before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from compressor.errors import CompressorError, InputError
from compressor.model.files import write_text
from compressor.model.heads import head_of
from compressor.model.latency_table import LatencyTable, Workload
from compressor.model.outputs import OUTPUT_NAMES, accepted_inputs
from compressor.model.runtime import SessionOptions, installed_flavours, require_provider
from compressor.model.shapes import FIELD, LAYERS
from compressor.places import cache
from compressor.plugin.components import Exporter, ModelFamily
from compressor.plugin.registry import Registry
from compressor.progress import announced
from compressor.recipe.plan import Plan
from compressor.recipe.verbs import VERBS
from compressor.run.calls import NamedFamily, plugin_call
from compressor.verify.environment import versions
from compressor.verify.hardware import hardware
from compressor.verify.profile import VERSION, profile
from compressor.verify.rounds import Protocol
from compressor.verify.variants import Subject, skeleton

if TYPE_CHECKING:
    from torch import nn

PLACE = "measuring the latency table"
PROTOCOL = Protocol(untuned=False)
GRAPH_PACKAGES = ("compressor-onnx", "torch", "transformers", "onnx", "onnxscript")
"""What decides, beside the exporter's options, which operators a file has; an exporter of another package is known by
its module only, so its upgrade needs ``compress profile --fresh``."""
WITHOUT_EFFECT = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
    "vocab_size",
    FIELD,
    LAYERS,
}
"""Fields of a config that the profiled model does not depend on."""


@dataclass(frozen=True)
class Request:
    """Which table.

    Attributes:
        model: of the architecture to profile; what counts is the dense model, whatever is left of this one.
        family: its table.
        exporter: writes the files that are measured.
        workload: batch, length, threads and provider.
        protocol: of the rounds.
    """

    model: nn.Module
    family: ModelFamily
    exporter: Exporter
    workload: Workload
    protocol: Protocol = field(default=PROTOCOL)

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that the numbers depend on, as plain data."""
        plain: Any = self.model
        config = {name: value for name, value in plain.config.to_dict().items() if name not in WITHOUT_EFFECT}
        installed = versions()
        key = {
            "version": VERSION,
            "hardware": hardware(self.workload.provider),
            "runtime": installed_flavours(),
            "packages": {name: installed.get(name) for name in GRAPH_PACKAGES},
            "workload": asdict(self.workload),
            "dtype": "float32",
            "session": asdict(SessionOptions(provider=self.workload.provider, threads=self.workload.threads)),
            "protocol": asdict(self.protocol),
            "exporter": {"name": self.exporter.name, "module": type(self.exporter).__module__}
            | self.exporter.options(),
            "model": {
                "class": type(plain).__name__,
                "attention": getattr(plain.config, "_attn_implementation", None),
                "labels": plain.config.num_labels,
                "config": config,
            },
        }
        as_read: dict[str, Any] = json.loads(json.dumps(key, sort_keys=True, default=str))
        return as_read

    @property
    def file_name(self) -> str:
        """Name of the table's file."""
        return f"{hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()}.json"

    def measure(self) -> LatencyTable:
        """Measure the table: a minute for a small model, several for a large one.

        Raises:
            InputError: the model cannot read as long a sequence.
            SetupError: onnxruntime or the provider is missing.
            PluginError: the exporter or the family fails.
        """
        require_provider(self.workload.provider)

        def export(model: nn.Module, path: Path) -> None:
            with plugin_call(self.exporter, PLACE):
                names = OUTPUT_NAMES[head_of(model)]
                self.exporter.export(model, path, input_names=_input_names(model), output_names=names)

        subject = Subject(skeleton(self.model), NamedFamily(self.family, PLACE), export)
        return profile(subject, self.workload, self.protocol)


@dataclass(frozen=True)
class Found:
    """A table, where it is kept, and whether it was measured just now."""

    table: LatencyTable
    path: Path
    measured: bool


def cache_directory() -> Path:
    """Return where tables are kept for all runs of this user."""
    return cache() / "latency"


def latency_table(request: Request, *, run_dir: Path | None = None, fresh: bool = False) -> Found:
    """Return a table: the one the run used before, else the cached one, else a new one.

    Args:
        request: which.
        run_dir: directory of a run; the table is kept below its ``latency`` as well.
        fresh: measure, whatever the cache has.

    Raises:
        CompressorError: it cannot be measured; see ``Request.measure``.
    """
    cached = cache_directory() / request.file_name
    kept = None if run_dir is None else run_dir / "latency" / request.file_name
    for path in (kept, cached):
        table = None if path is None or fresh else _read(path, request.key)
        if path is not None and table is not None:
            if kept is not None:
                _write(kept, request.key, table)
            return Found(table, path, measured=False)
    announced.info("measuring the latency of every head count and a grid of FFN widths at %s", request.workload)
    table = request.measure()
    if kept is not None:
        _write(kept, request.key, table)
    try:
        _write(cached, request.key, table)
    except OSError as error:
        announced.warning("the latency table cannot be kept for other runs: %s", error)
        cached = kept or cached
    return Found(table, cached, measured=True)


def _read(path: Path, key: dict[str, Any]) -> LatencyTable | None:
    """Return a table that was kept; None where there is none, or its file is damaged or of another key."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["key"] != key:
            raise InputError("it was measured under other conditions")
        return LatencyTable.from_json(json.dumps(entry["table"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, CompressorError) as error:
        announced.warning("%s is no usable latency table and is measured again: %s", path, error)
        return None


def _write(path: Path, key: dict[str, Any], table: LatencyTable) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"key": key, "table": json.loads(table.to_json())}, indent=2))


def exporter_of(plan: Plan) -> Exporter:
    """Return the exporter that a plan names, or the one that recipes get when they name none."""
    named = [step.component for step in plan.steps if isinstance(step.component, Exporter)]
    return named[-1] if named else default_exporter(Registry.load())


def default_exporter(registry: Registry) -> Exporter:
    """Return the exporter that recipes get when they name none."""
    verb = VERBS["export"]
    exporter = cast("type[Exporter]", registry.get(verb.kind, str(verb.default)))
    with plugin_call(exporter, PLACE):
        return exporter()


def _input_names(model: nn.Module) -> tuple[str, ...]:
    config: Any = model.config
    typed = getattr(config, "type_vocab_size", 0) > 1
    return tuple(name for name in accepted_inputs(model) if typed or name != "token_type_ids")
