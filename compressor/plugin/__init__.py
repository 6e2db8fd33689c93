"""What a plugin author meets: the contracts, the hooks, the target, and the marker."""

from compressor.plugin.components import (
    Component,
    Criterion,
    CriterionRun,
    Exporter,
    Loss,
    LossRun,
    ModelFamily,
    Pruned,
    PruningMethod,
    Quantizer,
    SparsityPattern,
    Task,
)
from compressor.plugin.hookspecs import hookimpl
from compressor.plugin.target import Target

__all__ = [
    "Component",
    "Criterion",
    "CriterionRun",
    "Exporter",
    "Loss",
    "LossRun",
    "ModelFamily",
    "Pruned",
    "PruningMethod",
    "Quantizer",
    "SparsityPattern",
    "Target",
    "Task",
    "hookimpl",
]
