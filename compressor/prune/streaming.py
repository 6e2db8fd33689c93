"""Prune single weights layer by layer, each from what it reads in the model pruned so far; hidden states rest on a shelf."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.progress import track
from compressor.prune.capture import Batch
from compressor.prune.layerwise import LayerCall, forward, layer_names, record, replay, stopped
from compressor.prune.observation import real_tokens
from compressor.prune.shelf import Shelf

Calls = Sequence[Mapping[str, LayerCall]]
"""What every layer is called with, per batch."""
Prune = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a parameter's name, its values (out, in) and the Gram matrix of what it reads (in, in) to new values and mask."""


class Stream:
    """A copy of a model on its way to being pruned, its calibration rows between two layers.

    Args:
        model: in eval mode; stays as it is.
        groups: of this model: where its layers are.
        batches: gives the calibration batches on the model's device, the same ones in the same order every time.
        shelf: where hidden states rest.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PrunableGroup],
        *,
        batches: Callable[[], Iterable[Batch]],
        shelf: Shelf,
    ) -> None:
        self.student, self.batches, self.shelf = copy.deepcopy(model), batches, shelf
        self.layers = layer_names(groups)
        self.masks: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def prune(self, names: Sequence[str], prune: Prune) -> None:
        """Prune weights bottom to top; fills ``masks`` and ``weights``, by parameter name.

        Inside a layer, weights that read the same (query, key and value) are pruned together, then what reads their
        outcome. Weights outside the layers (a head) come last, each from one more pass.

        Args:
            names: of the weights.
            prune: of one weight.
        """
        calls = self._start()
        for layer in track(self.layers, "Layers"):
            own = [name for name in names if name.startswith(f"{layer}.")]
            for together in self._stages(layer, own, calls):
                self._prune_together(together, prune, partial(self._replay, layer, calls))
            for number in range(len(calls)):
                self.shelf.put("hidden", number, self._replay(layer, calls, number))
        for name in names:
            if not any(name.startswith(f"{layer}.") for layer in self.layers):
                self._prune_together([name], prune, lambda _, batch: forward(self.student, batch))

    def _start(self) -> Calls:
        """Store what the lowest layer reads of every batch; return what the layers are called with."""
        calls = []
        for number, batch in enumerate(self.batches()):
            hidden, found = record(self.student, self.layers, batch)
            self.shelf.put("hidden", number, hidden)
            calls.append(found)
        return calls

    def _replay(self, layer: str, calls: Calls, number: int, _: Batch | None = None) -> Tensor:
        return replay(self.student, layer, calls[number][layer], self.shelf.get("hidden", number))

    def _stages(self, layer: str, names: Sequence[str], calls: Calls) -> list[list[str]]:
        """Return a layer's weights in the order in which they are used; those that read one tensor stand together."""
        read: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for name in names:
                module = self.student.get_submodule(name.removesuffix(".weight"))
                hook = module.register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
                stack.enter_context(hook)
            self._replay(layer, calls, 0)
        stages: list[list[str]] = []
        for name, tensor in read.items():
            if stages and read[stages[-1][0]] is tensor:
                stages[-1].append(name)
            else:
                stages.append([name])
        return stages

    def _prune_together(self, names: Sequence[str], prune: Prune, run: Callable[[int, Batch], Any]) -> None:
        """Prune weights that do not read one another, from the Gram matrices of what they read now."""
        grams: dict[str, Tensor] = {}
        last = self.student.get_submodule(names[-1].removesuffix(".weight"))
        for number, batch in enumerate(self.batches()):
            with self._gathering(names, grams, batch), stopped(last):
                run(number, batch)
        for name, gram in grams.items():
            parameter = self.student.get_parameter(name)
            values, mask = prune(name, parameter, gram)
            parameter.copy_(values)
            self.masks[name], self.weights[name] = mask.cpu(), values

    @contextmanager
    def _gathering(self, names: Sequence[str], grams: dict[str, Tensor], batch: Batch) -> Iterator[None]:
        """Add up, inside a ``with`` block, the Gram matrices of what layers read; those that read one tensor share one."""
        last: list[tuple[Tensor, Tensor]] = []

        def add(name: str, inputs: tuple[Tensor, ...]) -> None:
            if not last or last[-1][0] is not inputs[0]:
                rows = real_tokens(inputs[0], batch).double()
                last[:] = [(inputs[0], rows.T @ rows)]
            grams[name] = grams[name] + last[-1][1] if name in grams else last[-1][1]

        with ExitStack() as stack:
            for name in names:
                module = self.student.get_submodule(name.removesuffix(".weight"))
                hook = module.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
                stack.enter_context(hook)
            yield
