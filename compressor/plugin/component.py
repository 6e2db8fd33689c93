"""The root of every contract. Importing this module does not import torch."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Component(BaseModel, abc.ABC):
    """Root of every contract: a frozen, keyword-only declaration whose fields are its YAML options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    name: ClassVar[str]
    spelling: ClassVar[str] = ""
    """Regular expression of whole texts that stand for the component and its options, such as ``4x1``; empty = none."""

    @classmethod
    def spelled(cls, text: str) -> dict[str, Any]:
        """Return the options that a text of ``spelling`` stands for.

        Raises:
            ValueError: the text can be read in two ways; the message says which, and how to write either.
        """
        raise NotImplementedError(f"{cls.__name__} has no spelling; got {text!r}")

    def options(self) -> dict[str, Any]:
        """Return every option, nested components included, as plain data that validates back to an equal component."""
        return self.model_dump(mode="json", by_alias=False)

    def __repr__(self) -> str:
        """Return the options that were set, as a call: ``fisher(target=Target(macs=0.6))``."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        shown = {name: str(value) if isinstance(value, PurePath) else value for name, value in given.items()}
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    __str__ = __repr__


def nested(value: Any) -> Iterator[Component]:
    """Yield every component in a value: the value itself, its options, and theirs."""
    if isinstance(value, Component):
        yield value
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from nested(item)
