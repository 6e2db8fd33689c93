"""What a user sees of a running training, and its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.progress import Bar, announced
from compressor.train.objective import Term

POINTS = 10
"""Values of the loss on its way that are reported, and lines that are shown."""


class Progress(TrainerCallback):
    """Draws a bar, and announces the loss now and then.

    Attributes:
        title: of what is trained.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Bar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Draw the bar, on the screen of the first process only."""
        if state.is_world_process_zero:
            self._bar = Bar(self.title, total=state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Move it."""
        if self._bar is not None:
            self._bar.at(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - transformers'
        """Announce the loss.

        Raises:
            InputError: it is not a number any more.
        """
        logs: Mapping[str, float] = given["logs"]
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise diverged(state.global_step)
        if self._bar is not None:
            announced.info(
                "%s: step %d of %d, loss %.4g, learning rate %.2g",
                self.title,
                state.global_step,
                state.max_steps,
                logs["loss"],
                logs["learning_rate"],
            )

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


def diverged(step: int) -> InputError:
    """Return the error of a training whose loss is not a number any more."""
    return InputError(
        f"the training diverged: its loss is no number any more at step {step}",
        hint="lower learning_rate, or give more warmup",
    )


def loss_figures(history: Sequence[Tensor], terms: Sequence[Term], *, parts: int) -> dict[str, Any]:
    """Return the weighted loss and every unweighted term: its first and last tenth of the steps, and the curve.

    Args:
        history: of every batch part, shape (terms,).
        terms: in that order.
        parts: of a batch.
    """
    values = torch.stack(list(history)).float().cpu().reshape(-1, parts, len(terms)).mean(dim=1)
    total = values @ torch.tensor([term.loss.weight for term in terms])
    names = [term.loss.name for term in terms]
    unique = [name if names.count(name) == 1 else f"{name}.{number}" for number, name in enumerate(names)]
    return {
        "loss": _ends(total),
        "losses": {name: _ends(values[:, number]) for number, name in enumerate(unique)},
        "curve": [round(float(piece.mean()), 6) for piece in total.tensor_split(min(POINTS, len(total)))],
    }


def _ends(values: Tensor) -> dict[str, float]:
    """Return the means over the first tenth of the values, the last, and all."""
    tenth = max(1, len(values) // POINTS)
    parts = {"first": values[:tenth], "last": values[-tenth:], "mean": values}
    return {name: round(float(part.mean()), 6) for name, part in parts.items()}
