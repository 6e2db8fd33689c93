"""What a plugin author meets: the contracts, the hooks, the target, and the marker."""

from compressor.plugin.choice import Choice
from compressor.plugin.components import (
    Component,
    Criterion,
    CriterionRun,
    Exporter,
    Loss,
    LossRun,
    Metric,
    ModelFamily,
    Pruned,
    PruningMethod,
    Quantizer,
    SparsityPattern,
    Task,
)
from compressor.plugin.criterion import read_scores
from compressor.plugin.glance import Glance
from compressor.plugin.hookspecs import hookimpl
from compressor.plugin.provider import Provider
from compressor.plugin.quantization import QuantizationData
from compressor.plugin.registry import PluginFailure, Registry
from compressor.plugin.running import RunningScores
from compressor.plugin.target import Target
from compressor.plugin.training import Training
from compressor.plugin.trimmed import Trimmed

__all__ = [
    "Choice",
    "Component",
    "Criterion",
    "CriterionRun",
    "Exporter",
    "Glance",
    "Loss",
    "LossRun",
    "Metric",
    "ModelFamily",
    "PluginFailure",
    "Provider",
    "Pruned",
    "PruningMethod",
    "QuantizationData",
    "Quantizer",
    "Registry",
    "RunningScores",
    "SparsityPattern",
    "Target",
    "Task",
    "Training",
    "Trimmed",
    "hookimpl",
    "read_scores",
]
