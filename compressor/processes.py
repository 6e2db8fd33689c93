"""How many processes train together, as ``torchrun`` and ``accelerate launch`` say it, and what ones of our own are given."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass


def same_imports() -> dict[str, str]:
    """Return the environment in which a fresh interpreter (``python -P``) finds the modules that this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@dataclass(frozen=True)
class Processes:
    """The processes of a data-parallel run, all of which run the same command.

    Attributes:
        count: of them; 1 = an ordinary run.
        rank: of this one, from 0; 0 is the one that writes.
        local_rank: of this one on its machine, which numbers its GPU.
    """

    count: int = 1
    rank: int = 0
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> Processes:
        """Read what the launcher told this process."""
        names = {"count": "WORLD_SIZE", "rank": "RANK", "local_rank": "LOCAL_RANK"}
        return cls(**{name: int(os.environ[key]) for name, key in names.items() if os.environ.get(key)})

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0
