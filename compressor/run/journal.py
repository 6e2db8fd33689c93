"""Which stages of a run are finished: a killed run continues where it was, a changed recipe at its first changed step.

Each stage has a directory ``stages/NN-verb``. Its ``stage.json`` is written last and atomically, so a stage without
one never happened. It holds the fingerprint of everything the stage depends on (``fingerprints.py``): another model,
other rows, another version of a plugin, and the stage is done again. It also has the sha256 of every file of the
stage, so what a disk lost is noticed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.model.files import sha256, write_text
from compressor.recipe.plan import Step
from compressor.train import CHECKPOINTS

STAGES = "stages"
STAGE_FILE = "stage.json"
DRAFT = "stages.tmp"
TABLES = "latency"
"""Latency tables that stages decided by; they lie beside the stages and go where those go."""


@dataclass(frozen=True)
class Journal:
    """The stages below one run directory.

    Attributes:
        run_dir: the run directory.
        steps: of the plan, in order.
        fingerprints: of everything that each step's stage depends on, in the order of the steps.
    """

    run_dir: Path
    steps: tuple[Step, ...]
    fingerprints: tuple[str, ...]

    def directory(self, step: Step) -> Path:
        """Return the step's stage directory."""
        return self.run_dir / STAGES / step.slug

    def finished(self, step: Step) -> dict[str, Any] | None:
        """Return ``{"fingerprint", "seconds", "metrics", "files"}`` of a finished stage, or None when it must be done."""
        try:
            stage: dict[str, Any] = json.loads((self.directory(step) / STAGE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stage if stage.get("fingerprint") == self.fingerprints[step.index] else None

    def damaged(self, step: Step) -> list[str]:
        """Return the files of a finished stage that are gone, or not what they were when it was finished."""
        files = (self.finished(step) or {}).get("files", {})
        return [name for name, digest in files.items() if _sha256(self.directory(step) / name) != digest]

    def start(self, step: Step) -> Path:
        """Empty the step's stage directory but for its checkpoints, and forget every later stage; return the directory."""
        for later in self.steps[step.index + 1 :]:
            shutil.rmtree(self.directory(later), ignore_errors=True)
        directory = self.directory(step)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / STAGE_FILE).unlink(missing_ok=True)  # first: what is half emptied is not finished
        for path in directory.iterdir():
            if path.is_dir() and path.name != CHECKPOINTS:
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()
        return directory

    def finish(self, step: Step, *, seconds: float, metrics: Mapping[str, Any]) -> None:
        """Mark the stage as finished."""
        directory = self.directory(step)
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        names = [path.relative_to(directory) for path in paths]
        files = {name.as_posix(): sha256(directory / name) for name in names if name.parts[0] != CHECKPOINTS}
        stage = {"fingerprint": self.fingerprints[step.index], "seconds": seconds, "metrics": metrics, "files": files}
        write_text(directory / STAGE_FILE, json.dumps(stage, indent=2))
        self.forget_checkpoints(step)

    def forget_checkpoints(self, step: Step) -> None:
        """Remove the checkpoints of a finished stage: they have served."""
        shutil.rmtree(self.directory(step) / CHECKPOINTS, ignore_errors=True)

    def leading(self) -> list[Step]:
        """Return the finished steps before the first one that is not."""
        first = next((step.index for step in self.steps if self.finished(step) is None), len(self.steps))
        return list(self.steps[:first])

    def progress(self) -> tuple[int, bool]:
        """Return how many leading steps are finished, and whether the next one has checkpoints to go on from."""
        count = len(self.leading())
        following = self.steps[count : count + 1]
        return count, any((self.directory(step) / CHECKPOINTS).is_dir() for step in following)

    def take_over(self, others: Iterable[Path]) -> Path | None:
        """Begin with the leading stages of another run directory, where it has come further than this one.

        All are taken from one directory, as what follows was made of what came before; the other one stays as it is.
        They appear by one rename.

        Args:
            others: run directories that nobody is at work in.

        Returns:
            The directory that they are from, or None.
        """
        draft = self.run_dir / DRAFT
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed here
        own = self.progress()
        best = max((replace(self, run_dir=path) for path in others), key=Journal.progress, default=self)
        count, resumable = best.progress()
        if (count, resumable) <= own:
            return None
        draft.mkdir()
        for step in best.leading():
            shutil.copytree(best.directory(step), draft / step.slug, copy_function=link)
        if resumable:  # copied: a training writes into what it finds there
            slug = self.steps[count].slug
            shutil.copytree(best.run_dir / STAGES / slug / CHECKPOINTS, draft / slug / CHECKPOINTS)
        if (best.run_dir / TABLES).is_dir():
            shutil.copytree(best.run_dir / TABLES, self.run_dir / TABLES, dirs_exist_ok=True)
        shutil.rmtree(self.run_dir / STAGES, ignore_errors=True)
        draft.rename(self.run_dir / STAGES)
        return best.run_dir


def _sha256(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def link(source: str, destination: str) -> None:
    """Give a file of a finished stage, which nobody writes to again, another name; copy it where that is impossible."""
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
