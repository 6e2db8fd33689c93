"""The root of every contract. Importing this module does not import torch."""

from __future__ import annotations

import abc
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Component(BaseModel, abc.ABC):
    """Root of every contract: a frozen, keyword-only declaration whose fields are its YAML options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    name: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """Return every option, nested components included, as plain data that validates back to an equal component."""
        return self.model_dump(mode="json", by_alias=False)

    def __repr__(self) -> str:
        """Return the options that were set, as a call: ``fisher(target=Target(macs=0.6))``."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        shown = {name: str(value) if isinstance(value, PurePath) else value for name, value in given.items()}
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    __str__ = __repr__
