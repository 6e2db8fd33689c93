"""The model in training together with its loss: one module whose output is the sum of the terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.outputs import accepted_inputs
from compressor.plugin.components import Loss, LossRun

ENCODED = ("last_hidden_state", "pooler_output")
"""What losses with ``Loss.encoder`` read beside the head's outputs: shapes (B, T, D) and, where there is a pooler, (B, D)."""


@dataclass(frozen=True)
class Term:
    """One loss at work: its declaration and its run."""

    loss: Loss
    run: LossRun


@dataclass(frozen=True)
class Terms:
    """What a training minimises.

    Attributes:
        terms: that add up.
        teacher: the dense model, in eval mode; asked only where a term needs it.
        dropout: whether the model's dropout works in training.
    """

    terms: Sequence[Term]
    teacher: nn.Module
    dropout: bool = True

    def any(self, name: str) -> bool:
        """Tell whether any term's declaration says so."""
        return any(getattr(term.loss, name) for term in self.terms)


class Objective(nn.Module):
    """Gives the summed loss of a batch, and keeps what every term was.

    The teacher is no submodule: it is neither trained nor saved nor wrapped.

    Attributes:
        student: the model in training.
        history: every term's value, unweighted, of every batch part so far, each shape (terms,).
        penalty: on the student's parameters, a scalar that is added to the loss; None = nothing.
    """

    accepts_loss_kwargs = False  # transformers would scale the loss by the number of labels

    def __init__(self, student: nn.Module, terms: Terms) -> None:
        super().__init__()
        self.student = student
        self.history: list[Tensor] = []
        self.penalty: Callable[[], Tensor] | None = None
        self._terms = (terms,)
        self._options = {"output_hidden_states": True} if terms.any("hidden") else {}

    @property
    def terms(self) -> Terms:
        """What is minimised."""
        return self._terms[0]

    def train(self, mode: bool = True) -> Objective:  # noqa: FBT001, FBT002 - torch's signature
        """Let dropout work, if it is asked for: nothing else in an encoder knows the mode."""
        super().train(mode)
        self.student.train(mode and self.terms.dropout)
        return self

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return ``{"loss": scalar}`` of a batch."""
        student = _float32(self._outputs(self.student, batch))
        teacher = self._teacher_outputs(batch)
        with _full_precision(batch["input_ids"].device.type):
            values = [term.run(student, teacher, batch) for term in self.terms.terms]
            weighted = [term.loss.weight * value for term, value in zip(self.terms.terms, values, strict=True)]
            loss = torch.stack(weighted).sum() + (self.penalty() if self.penalty else 0.0)
        if self.training:
            self.history.append(torch.stack([value.detach() for value in values]))
        return {"loss": loss}

    def _outputs(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        inputs = {name: batch[name] for name in accepted_inputs(model) if name in batch}
        if not self.terms.any("encoder"):
            return model(**inputs, **self._options)
        with encoder_output(model) as encoded:
            outputs = model(**inputs, **self._options)
        for name, value in encoded.items():
            outputs[name] = value
        return outputs

    def _teacher_outputs(self, batch: Mapping[str, Tensor]) -> Any:
        if not self.terms.any("needs_teacher"):
            return None
        with torch.no_grad():
            return _float32(self._outputs(self.terms.teacher, batch))

    def state_dict_of_losses(self) -> dict[str, Tensor]:
        """Return the history, shape (batch parts, terms), and what the terms save."""
        state = {f"{number}.{k}": v for number, t in enumerate(self.terms.terms) for k, v in t.run.state_dict().items()}
        return state | ({"history": torch.stack(self.history)} if self.history else {})

    def load_state_dict_of_losses(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict_of_losses`` gave."""
        device = next(self.student.parameters()).device
        self.history = list(state["history"].to(device)) if "history" in state else []
        for number, term in enumerate(self.terms.terms):
            own = {name.removeprefix(f"{number}."): v for name, v in state.items() if name.startswith(f"{number}.")}
            term.run.load_state_dict(own)


@contextmanager
def encoder_output(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect what the encoder gives in a forward pass of the whole model: the names are those of ``ENCODED``."""
    whole: Any = model
    encoded: dict[str, Tensor] = {}

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        encoded.update({name: output[name] for name in ENCODED if output.get(name) is not None})

    hook = whole.base_model.register_forward_hook(keep)
    try:
        yield encoded
    finally:
        hook.remove()


def _float32(outputs: Any) -> Any:
    """Return an output whose tensors are float32, whatever autocast made them."""
    for name, value in list(outputs.items()):
        if isinstance(value, Tensor):
            outputs[name] = value.float()
        elif isinstance(value, tuple):
            outputs[name] = tuple(item.float() if isinstance(item, Tensor) else item for item in value)
    return outputs


def _full_precision(device: str) -> Any:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
