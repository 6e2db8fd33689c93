"""What is kept on disk of a cut that is done, so that a killed pruning goes on after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.model import Masks, load, save
from compressor.train.checkpoints import complete, is_complete, save_tensors

if TYPE_CHECKING:
    from compressor.model import Family

MASKS, WEIGHT_MASKS, LOSSES = "masks.safetensors", "weight_masks.safetensors", "losses.safetensors"
FIGURES = "figures.json"


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
        """Write a cut; once it is on the disk, earlier ones have served."""
        place = self.directory / f"{cut.done:02d}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        save(cut.model, place)
        cut.masks.save(place / MASKS)
        cut.weight_masks.save(place / WEIGHT_MASKS)
        save_tensors(cut.losses, place / LOSSES)
        (place / FIGURES).write_text(json.dumps(list(cut.figures)), encoding="utf-8")
        complete(place, fingerprint=self.fingerprint)
        for older in self.directory.iterdir():
            if older != place:
                shutil.rmtree(older)

    def newest(self, family: Family, model_types: Sequence[str]) -> Cut | None:
        """Return the last cut that is complete, or None."""
        for place in sorted(self.directory.glob("*"), reverse=True):
            if is_complete(place, fingerprint=self.fingerprint):
                model = load(place, dict.fromkeys(model_types, family)).requires_grad_(False)
                masks, weight_masks = (Masks.load(place / name) for name in (MASKS, WEIGHT_MASKS))
                figures = json.loads((place / FIGURES).read_text(encoding="utf-8"))
                return Cut(int(place.name), model, masks, weight_masks, load_file(str(place / LOSSES)), figures)
        return None
