"""A plugin of toys: declarations that are never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from compressor.plugin import Choice, Component, Criterion, Exporter, PruningMethod, Target, Task, hookimpl


class Magnitude(Criterion):
    """Absolute values."""

    name: ClassVar[str] = "extent"

    def start(self, targets: Mapping[str, tuple[int, ...]]) -> Any:
        raise NotImplementedError


class Taylor(Magnitude):
    """First-order change of the loss."""

    name: ClassVar[str] = "sailor"

    samples: int = Field(default=1024, ge=1, description="Rows looked at.")
    inner: Choice[Criterion] | None = Field(default=None, description="Criterion that breaks ties.")


class ToyMethod(PruningMethod):
    """Prunes nothing."""

    name: ClassVar[str] = "toy"

    target: Target = Field(description="What is asked.")
    criterion: Choice[Criterion] = Field(default=Magnitude(), description="What scores.")
    extras: tuple[Choice[Criterion], ...] = Field(default=(), description="More of it.")
    tuning: Literal["scales", "none"] = Field(default="scales", description="How what stays is tuned.")
    damping: float = Field(default=0.5, ge=0, le=1, description="Of the solver.")
    exact: bool = Field(default=False, description="Slow and exact.")
    size: int | tuple[int, ...] = Field(default=1, description="A union.")

    def prune(self, session: Any) -> Any:
        raise NotImplementedError


class ToyTask(Task):
    """Words."""

    name: ClassVar[str] = "toy-task"
    head: ClassVar[Literal["sequence-classification"]] = "sequence-classification"

    @property
    def metric(self) -> str:
        return "accuracy"

    def load(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def metrics(self, rows: Any) -> dict[str, float]:
        raise NotImplementedError


class ToyExporter(Exporter):
    """Writes nothing."""

    name: ClassVar[str] = "toy-format"

    opset: int = Field(default=20, ge=18, description="Opset.")

    def export(self, model: Any, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]) -> Any:
        raise NotImplementedError


@hookimpl
def compressor_components() -> Iterator[type[Component]]:
    yield from (Magnitude, Taylor, ToyMethod, ToyTask, ToyExporter)
