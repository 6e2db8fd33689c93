"""What the key of a step means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compressor.plugin import Component, Training
from compressor.recipe.options import Verification


@dataclass(frozen=True)
class Verb:
    """What a step's key means: a component of ``kind``, named by the option ``key`` (``default`` when not given).

    ``component`` is set for a step that belongs to the core and is not looked up.
    """

    kind: str
    key: str = ""
    default: str | None = None
    component: type[Component] | None = None


VERBS: Mapping[str, Verb] = {
    "prune": Verb("method", "method"),
    "train": Verb(Training.kind, component=Training),
    "export": Verb("exporter", "format", default="onnx"),
    "quantize": Verb("quantizer", "method"),
    "verify": Verb(Verification.kind, component=Verification),
}
