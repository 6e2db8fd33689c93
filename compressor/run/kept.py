"""A pruning that is done and waits for its run: what a sweep keeps of every point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from compressor.errors import InputError
from compressor.model.files import write_text
from compressor.model.masks import Masks
from compressor.plugin.components import Pruned
from compressor.plugin.trimmed import Trimmed

MASKS, WEIGHTS, FILE = "masks.safetensors", "weights.safetensors", "pruned.json"
PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "metrics": dict,
    "dropped_layers": tuple,
    "aligned": tuple,
    "trimmed": Trimmed.read,
}
"""The fields of ``Pruned`` that are plain data, each with what makes it of JSON; all others are tensors."""


@dataclass(frozen=True)
class Kept:
    """The place of one pruning. Its ``pruned.json`` is written last: without it there is none.

    Attributes:
        directory: of its files.
    """

    directory: Path

    def save(self, pruned: Pruned, *, fingerprint: str) -> None:
        """Write the pruning.

        Args:
            pruned: by a method.
            fingerprint: of everything it depends on.

        Raises:
            TypeError: a field that should be plain data is not.
            ValueError: a figure is not a finite number.
        """
        plain = {name: getattr(pruned, name) for name in PLAIN} | {"trimmed": pruned.trimmed and asdict(pruned.trimmed)}
        text = json.dumps({"fingerprint": fingerprint, "plain": plain}, indent=2, allow_nan=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        pruned.masks.save(self.directory / MASKS)
        weights = {name: weight.detach().cpu().clone().contiguous() for name, weight in pruned.weights.items()}
        save_file(weights, str(self.directory / WEIGHTS))
        write_text(self.directory / FILE, text)

    def load(self, fingerprint: str) -> Pruned | None:
        """Return the pruning; None where there is none, or it is of something else, or its files are damaged."""
        try:
            found = json.loads((self.directory / FILE).read_text(encoding="utf-8"))
            if found["fingerprint"] != fingerprint:
                return None
            return Pruned(
                masks=Masks.load(self.directory / MASKS),
                weights=load_file(str(self.directory / WEIGHTS)),
                **{name: read(found["plain"][name]) for name, read in PLAIN.items()},
            )
        except (OSError, ValueError, KeyError, InputError, SafetensorError):
            return None
