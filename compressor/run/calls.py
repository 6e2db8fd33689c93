"""Calls into plugins: whatever goes wrong inside one gets its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import CompressorError, PluginError, ran_out
from compressor.model.imprint import Imprint
from compressor.plugin.component import nested
from compressor.plugin.components import Component, Metric, ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from compressor.model.groups import PrunableGroup
    from compressor.run.session import Session


@contextmanager
def plugin_call(component: Component | type[Component], place: str) -> Iterator[None]:
    """Name the component in whatever goes wrong inside it; or one of its options that is another package's component.

    What blames someone else passes: an ``InputError``, a ``SetupError``, memory or disk that ran out.

    Args:
        component: what is called, or its class while it is made.
        place: where in the run, for the message: ``step 01-prune``.

    Raises:
        PluginError: it raised anything else, a bare ``CompressorError`` included.
    """
    try:
        yield
    except CompressorError as error:
        if type(error) is not CompressorError:
            raise
        raise PluginError(f"{place}: {_blamed(component, error)}: {error.message}", hint=error.hint) from error
    except Exception as error:  # a plugin may raise anything: this is where it gets its name
        if ran_out(error):
            raise
        raise PluginError(
            f"{place}: {_blamed(component, error)} failed: {type(error).__name__}: {error}",
            hint="report it to the plugin's authors",
        ) from error


@contextmanager
def read_only(component: Component, session: Session) -> Iterator[None]:
    """Hold a component to reading: the session's models and fields are afterwards what they were before.

    Args:
        component: what is called.
        session: what it is given.

    Raises:
        CompressorError: they are not; says how they differ.
    """
    fields = dict(vars(session))
    models = [session.model] if session.model is session.teacher else [session.model, session.teacher]
    before = [(model, Imprint.of(model)) for model in models]
    yield
    changes = [change for model, imprint in before for change in imprint.changes(model)]
    changes += [f"assigned to session.{name}" for name, value in vars(session).items() if fields.get(name) is not value]
    if changes:
        others = [_named(type(one)) for one in _strangers(component)]
        with_others = f" (with {', '.join(others)})" if others else ""
        raise CompressorError(
            f"expected the model it was given unchanged; it{with_others} {'; '.join(changes)}",
            hint="work on a copy, keep hooks and modes inside context managers, and return what should change",
        )


def _named(cls: type[Component]) -> str:
    return f"{cls.kind} '{cls.name}' ({cls.__module__})"


def _strangers(component: Component) -> list[Component]:
    """Return the options that are components of other packages than the component itself."""
    own = _package(type(component).__module__)
    return [one for one in nested(component) if _package(type(one).__module__) != own]


def _blamed(component: Component | type[Component], error: BaseException) -> str:
    """Name the component that was called, or the stranger among its options in whose code the error arose."""
    if isinstance(component, type):
        return _named(component)
    frame, packages = error.__traceback__, []
    while frame is not None:
        packages.append(_package(str(frame.tb_frame.f_globals.get("__name__", ""))))
        frame = frame.tb_next
    guilty = [one for one in _strangers(component) if _package(type(one).__module__) in packages]
    return _named(type(guilty[0])) if guilty else _named(type(component))


def _package(module: str) -> str:
    return module.partition(".")[0]


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

    def fixed_layers(self, model: nn.Module) -> Mapping[int, str]:
        """Return the layers that cannot be dropped, with reasons."""
        with plugin_call(self.family, self.place):
            return self.family.fixed_layers(model)

    def after_shrink(self, model: nn.Module) -> None:
        """Adjust what slices cannot express."""
        with plugin_call(self.family, self.place):
            self.family.after_shrink(model)
