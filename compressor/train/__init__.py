"""Training: transformers' loop, summed losses, masks that hold, checkpoints that are whole."""

from compressor.train.checkpoints import Stateful
from compressor.train.enforce import Enforced
from compressor.train.fit import Extension, Trained, TrainingRun
from compressor.train.processes import Processes

__all__ = ["Enforced", "Extension", "Processes", "Stateful", "Trained", "TrainingRun"]
