"""What a model is like at one moment: whoever may only read it is held to that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 3
"""Names that a message gives before it counts the others."""


@dataclass(frozen=True)
class Imprint:
    """Everything that a reader of a model must leave as it was, by names of modules or parameters.

    Attributes:
        kinds: class of every module, and whether its ``forward`` was replaced: a parametrization changes the class.
        hooks: numbers of the hooks on every module; those that transformers puts there itself are left out.
        training: modules in training mode.
        weights: sha256 of every parameter and buffer.
        trainable: parameters that require a gradient.
        gradients: parameters that hold one.
    """

    kinds: Mapping[str, tuple[type, bool]]
    hooks: Mapping[str, tuple[str, ...]]
    training: Mapping[str, bool]
    weights: Mapping[str, str]
    trainable: Mapping[str, bool]
    gradients: Mapping[str, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Imprint:
        """Look at a model."""
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters())

        def each(items: Mapping[str, Any], fact: Callable[[Any], Any]) -> dict[str, Any]:
            return {name: fact(item) for name, item in items.items()}

        return cls(
            kinds=each(modules, lambda module: (type(module), "forward" in vars(module))),
            hooks=each(modules, _hooks),
            training=each(modules, lambda module: module.training),
            weights=each({**parameters, **dict(model.named_buffers())}, _digest),
            trainable=each(parameters, lambda parameter: parameter.requires_grad),
            gradients=each(parameters, lambda parameter: parameter.grad is not None),
        )

    def changes(self, model: nn.Module) -> tuple[str, ...]:
        """Say how a model differs from what it was, one sentence each; nothing where it does not."""
        now = Imprint.of(model)
        found = []
        for field in fields(self):
            before, after = getattr(self, field.name), getattr(now, field.name)
            # What a new module has is no change of its own, but a parameter may come without one.
            new = before.keys() ^ after.keys() if field.name in {"kinds", "weights"} else set()
            names = [name for name, fact in before.items() if name in after and after[name] != fact]
            names += sorted(new)
            if names:
                found.append(f"{SENTENCES[field.name]} {_listed(names)}")
        return tuple(found)


SENTENCES: Mapping[str, str] = {
    "kinds": "changed the modules",
    "hooks": "left hooks on",
    "training": "changed training or eval mode of",
    "weights": "changed the weights",
    "trainable": "changed requires_grad of",
    "gradients": "left gradients on",
}


def _hooks(module: nn.Module) -> tuple[str, ...]:
    tables = [(name, table) for name, table in vars(module).items() if name.endswith("_hooks") and table]
    return tuple(
        f"{name}:{key}"
        for name, table in tables
        for key, hook in table.items()
        if not getattr(hook, "__module__", "").startswith("transformers.")  # installed once, to collect hidden states
    )


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(content.data).hexdigest()}"


def _listed(names: Iterable[str]) -> str:
    quoted = [name or "the model itself" for name in names]
    rest = len(quoted) - SHOWN
    return ", ".join(quoted[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def same_encoder(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models' encoders have the same weights, as far as both have them."""
    models: tuple[Any, Any] = (one, other)
    first, second = (model.base_model.state_dict() for model in models)
    both = first.keys() & second.keys()
    return all(
        first[name].shape == second[name].shape and torch.equal(first[name].cpu(), second[name].cpu()) for name in both
    )
