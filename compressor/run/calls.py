"""Calls into plugins: whatever goes wrong inside one gets its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import CompressorError, PluginError, ran_out
from compressor.plugin.components import Component, Metric, ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup


@contextmanager
def plugin_call(component: Component | type[Component], place: str) -> Iterator[None]:
    """Name the component in whatever goes wrong inside it.

    What blames someone else passes: an ``InputError``, a ``SetupError``, memory or disk that ran out.

    Args:
        component: what is called, or its class while it is made.
        place: where in the run, for the message: ``step 01-prune``.

    Raises:
        PluginError: it raised anything else, a bare ``CompressorError`` included.
    """
    cls = component if isinstance(component, type) else type(component)
    name = f"{place}: {cls.kind} '{cls.name}' ({cls.__module__})"
    try:
        yield
    except CompressorError as error:
        if type(error) is not CompressorError:
            raise
        raise PluginError(f"{name}: {error.message}", hint=error.hint) from error
    except Exception as error:  # a plugin may raise anything: this is where it gets its name
        if ran_out(error):
            raise
        raise PluginError(
            f"{name} failed: {type(error).__name__}: {error}", hint="report it to the plugin's authors"
        ) from error


@dataclass(frozen=True)
class NamedMetric:
    """A metric of the user's own, which is named in whatever goes wrong inside it.

    Attributes:
        metric: the component.
    """

    metric: Metric

    @property
    def name(self) -> str:
        """Name of the component."""
        return self.metric.name

    def compute(self, rows: Mapping[str, np.ndarray]) -> float:
        """Return the figure.

        Raises:
            PluginError: the component fails, or what it returns is no finite number.
        """
        with plugin_call(self.metric, "verification"):
            figure = self.metric.compute(rows)
            if not isinstance(figure, int | float | np.number) or not math.isfinite(figure):
                raise CompressorError(f"expected a finite number, got {figure!r}")
            return float(figure)


@dataclass(frozen=True)
class NamedFamily:
    """What surgery and loading need of a model family, which is named in whatever goes wrong inside it.

    Attributes:
        family: the table of the model's architecture.
        place: where in the run, for the message.
    """

    family: ModelFamily
    place: str

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return the prunable groups of the model as it is now."""
        with plugin_call(self.family, self.place):
            return self.family.groups(model)

    def after_shrink(self, model: nn.Module) -> None:
        """Adjust what slices cannot express."""
        with plugin_call(self.family, self.place):
            self.family.after_shrink(model)
