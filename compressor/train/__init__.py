"""Training: transformers' loop, summed losses, masks that hold, checkpoints that are whole."""

from compressor.processes import Processes
from compressor.train.checkpoints import Stateful
from compressor.train.enforce import Enforced
from compressor.train.fit import Extension, Trained, TrainingRun

__all__ = ["Enforced", "Extension", "Processes", "Stateful", "Trained", "TrainingRun"]
