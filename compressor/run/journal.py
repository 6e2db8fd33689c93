"""Which stages of a run are finished: a killed run continues where it was.

Each stage has a directory ``stages/NN-verb``. Its ``stage.json`` is written last and atomically, so a stage without
one never happened. It holds a fingerprint of everything the run depends on: another model, other rows, another
version of a plugin, and the stage is done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.model.files import write_text
from compressor.recipe.plan import Step
from compressor.train import CHECKPOINTS

STAGE_FILE = "stage.json"


def chain(*parts: str) -> str:
    """Return the sha256 of the parts, none of which can run into the next."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Journal:
    """The stages below one run directory.

    Attributes:
        run_dir: the run directory.
        root: fingerprint of what every stage depends on: plan, model, calibration rows, device, library versions.
        steps: of the plan, in order.
    """

    run_dir: Path
    root: str
    steps: tuple[Step, ...]

    def directory(self, step: Step) -> Path:
        """Return the step's stage directory."""
        return self.run_dir / "stages" / step.slug

    def fingerprint(self, step: Step) -> str:
        """Return the sha256 over the root, which covers every step's options, and the step's place in the plan."""
        return chain(self.root, step.slug)

    def finished(self, step: Step) -> dict[str, Any] | None:
        """Return ``{"fingerprint", "seconds", "metrics"}`` of a finished stage, or None when it must be done."""
        try:
            stage: dict[str, Any] = json.loads((self.directory(step) / STAGE_FILE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        return stage if stage.get("fingerprint") == self.fingerprint(step) else None

    def start(self, step: Step) -> Path:
        """Empty the step's stage directory but for its checkpoints, and forget every later stage; return the directory."""
        for later in self.steps[step.index + 1 :]:
            shutil.rmtree(self.directory(later), ignore_errors=True)
        directory = self.directory(step)
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir() and path.name != CHECKPOINTS:
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()
        return directory

    def finish(self, step: Step, *, seconds: float, metrics: Mapping[str, Any]) -> None:
        """Mark the stage as finished; its checkpoints have served."""
        stage = {"fingerprint": self.fingerprint(step), "seconds": seconds, "metrics": metrics}
        write_text(self.directory(step) / STAGE_FILE, json.dumps(stage, indent=2))
        shutil.rmtree(self.directory(step) / CHECKPOINTS, ignore_errors=True)
