"""Who a plugin comes from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint


@dataclass(frozen=True)
class Provider:
    """Who a plugin comes from: a distribution, its version, and the module inside it."""

    distribution: str
    version: str
    module: str

    @classmethod
    def of(cls, point: EntryPoint) -> Provider:
        """Return who provides the plugin behind an entry point."""
        distribution, version = _named(point.dist) if point.dist else ("(no distribution)", "")
        return cls(distribution, version, point.value)

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.distribution, self.version)))} ({self.module})"


@lru_cache(maxsize=16)
def _named(distribution: Distribution) -> tuple[str, str]:
    """Return name and version: a distribution parses its metadata anew whenever it is asked for either."""
    return distribution.name, distribution.version
