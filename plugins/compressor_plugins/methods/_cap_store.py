"""What is kept on disk of a cut that is done, so that a killed pruning goes on after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compressor.model import Masks, load, save

if TYPE_CHECKING:
    from compressor.model import Family

MARKER = "cut.json"


@dataclass(frozen=True)
class Cut:
    """A model after some cuts and the training that followed.

    Attributes:
        done: cuts so far.
        model: what is left.
        masks: per group of the model before the first cut, shape (units,), ``True`` = kept.
        weight_masks: element-wise masks of ``model`` by parameter name, of earlier steps.
        losses: what the losses remember.
        figures: plain data, one mapping a cut.
    """

    done: int
    model: nn.Module
    masks: Masks
    weight_masks: Masks
    losses: Mapping[str, Tensor]
    figures: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Cuts:
    """Where the cuts of one pruning rest; what is not complete, or of another pruning, does not count.

    Attributes:
        directory: of their directories.
        fingerprint: of everything that they depend on.
    """

    directory: Path
    fingerprint: str

    def save(self, cut: Cut) -> None:
        """Write a cut, its marker last; earlier ones have served."""
        place = self.directory / f"{cut.done:02d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / MARKER).unlink(missing_ok=True)
        save(cut.model, place / "model")
        cut.masks.save(place / "masks.safetensors")
        cut.weight_masks.save(place / "weight_masks.safetensors")
        save_file(
            {name: value.cpu().contiguous() for name, value in cut.losses.items()}, str(place / "losses.safetensors")
        )
        found = {"fingerprint": self.fingerprint, "figures": list(cut.figures)}
        unfinished = place / f"{MARKER}.part"
        unfinished.write_text(json.dumps(found), encoding="utf-8")
        unfinished.replace(place / MARKER)
        for older in self.directory.glob("*"):
            if older != place:
                shutil.rmtree(older)

    def newest(self, family: Family, model_types: Sequence[str]) -> Cut | None:
        """Return the last cut that is complete, or None."""
        for place in sorted(self.directory.glob("*"), reverse=True):
            try:
                found = json.loads((place / MARKER).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if found["fingerprint"] == self.fingerprint:
                model = load(place / "model", dict.fromkeys(model_types, family)).requires_grad_(False)
                masks, weight_masks = (Masks.load(place / f"{name}.safetensors") for name in ("masks", "weight_masks"))
                losses = load_file(str(place / "losses.safetensors"))
                return Cut(int(place.name), model, masks, weight_masks, losses, found["figures"])
        return None
