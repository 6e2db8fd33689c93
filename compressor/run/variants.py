"""The files of a run: of the dense and of the compressed model, each portable, fused and in int8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from compressor.verify.rounds import Baseline
from compressor.verify.section import BEST_DENSE, BEST_INT8, portable

MODELS: Mapping[str, str] = {"dense": "dense", "model": "compressed"}
"""What the report calls a model, by the stem of its portable file."""
VARIANTS: Mapping[str, str] = {"": "", "_ort": " fused", "_int8": " int8"}
"""What the report calls a variant, by what the stem of its file ends in: as exported, fused for onnxruntime, in int8."""
ARTIFACTS: Mapping[str, str] = {
    f"{stem}{end}": f"{model}{variant}" for stem, model in MODELS.items() for end, variant in VARIANTS.items()
}
"""Names of models in reports, by the name of the artifact, which is the stem of its file."""
BASELINES: Mapping[str, Baseline] = {
    BEST_DENSE: Baseline(("dense", "dense fused")),
    BEST_INT8: Baseline(("dense int8",)),
    "dense, default options": Baseline(("dense",), "default"),
}
"""What costs nothing to have: gains are stated against it."""


def file_name(artifact: str) -> str:
    """Return the name of an artifact's file."""
    return f"{artifact}.onnx"


def named(artifacts: Mapping[str, Path]) -> dict[str, Path]:
    """Return files by the names that reports use, dense ones first."""
    return {label: artifacts[name] for name, label in ARTIFACTS.items() if name in artifacts}


def runnable(files: Mapping[str, Path], provider: str) -> dict[str, Path]:
    """Return the files that a provider is to run: those fused for onnxruntime only where it is onnxruntime."""
    return {name: path for name, path in files.items() if provider != "openvino" or portable(name) == name}


def final(models: Iterable[str]) -> str:
    """Return the model that a run was asked for: the int8 one where there is one."""
    return "compressed int8" if "compressed int8" in models else "compressed"


def same_answers(model: str, models: Iterable[str]) -> list[str]:
    """Return the models that answer as this one does: itself, and its fused form, which parity with torch has shown."""
    return [one for one in (model, f"{model} fused") if one in models]
