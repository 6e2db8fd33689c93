"""Training: transformers' loop, summed losses, masks that hold, checkpoints that are whole."""

from compressor.processes import Processes
from compressor.train.checkpoints import Stateful
from compressor.train.enforce import Enforced
from compressor.train.fit import CHECKPOINTS, Extension, Trained, TrainingRun
from compressor.train.rows import NumberedRows
from compressor.train.trainer import ParameterGroup

__all__ = [
    "CHECKPOINTS",
    "Enforced",
    "Extension",
    "NumberedRows",
    "ParameterGroup",
    "Processes",
    "Stateful",
    "Trained",
    "TrainingRun",
]
