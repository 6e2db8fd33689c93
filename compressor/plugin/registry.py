"""What is installed: every component by kind and name, who provides it, and the hooks. Imports no torch."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, cast

import pluggy
from pydantic import PydanticUndefinedAnnotation
from pydantic.errors import PydanticInvalidForJsonSchema

from compressor.errors import InputError, PluginError, did_you_mean
from compressor.plugin import hookspecs
from compressor.plugin.components import Component
from compressor.plugin.provider import Provider


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that is installed and cannot be used, why, and what it raised."""

    entry_point: str
    provider: Provider
    error: str
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"plugin '{self.entry_point}' of {self.provider} failed to load: {self.error}"


class UnusableComponentError(ValueError):
    """What a plugin yields is no component that recipes could use."""


class ProvidedTwiceError(PluginError):
    """Two plugins provide the same (kind, name); the message names both."""


class Registered(NamedTuple):
    """One component and who provides it."""

    kind: str
    name: str
    cls: type[Component]
    provider: Provider


@dataclass(frozen=True)
class Plugin:
    """A plugin that was loaded, with the components it gave."""

    entry_point: str
    provider: Provider
    components: tuple[Registered, ...]


class Registry:
    """Every component by kind and name, and the hooks of every plugin.

    Filled once by ``load``; then only ``register`` adds to it, as the core does with its own hooks.
    """

    def __init__(self) -> None:
        self._pm = pluggy.PluginManager(hookspecs.PROJECT)
        self._pm.add_hookspecs(hookspecs)
        self._components: dict[tuple[str, str], Registered] = {}
        self._plugins: list[Plugin] = []
        self._failures: list[PluginFailure] = []

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None, *, strict: bool = True) -> Registry:
        """Load the plugins behind the entry points of group ``compressor`` (or behind the given ones).

        A plugin that fails to import, misspells a hook or provides what is no component is kept in ``failures`` and
        does no other harm.

        Args:
            points: entry points; default: the installed ones.
            strict: raise when two plugins provide the same (kind, name); otherwise the second one has failed.

        Raises:
            ProvidedTwiceError: two plugins provide the same (kind, name).
        """
        registry = cls()
        for point in entry_points(group=hookspecs.PROJECT) if points is None else points:
            registry._load(point, strict=strict)
        return registry

    def _load(self, point: EntryPoint, *, strict: bool) -> None:
        provider = Provider.of(point)
        try:
            components = self._hook_up(point.load(), f"{provider.distribution}:{point.name}", provider)
        except (Exception, SystemExit) as error:  # a stranger's module can raise anything; it is reported
            if strict and isinstance(error, ProvidedTwiceError):
                raise
            told = isinstance(error, UnusableComponentError | ProvidedTwiceError)
            reason = error.args[0] if told else f"{type(error).__name__}: {error}"
            self._failures.append(PluginFailure(point.name, provider, reason, error))
            return
        self._add(point.name, provider, components)

    def register(self, plugin: object, name: str, *, provider: Provider | None = None) -> None:
        """Add a module (or any object with hook implementations) that is not behind an entry point.

        Raises:
            PluginError: a hook is misspelt, a component is unusable, or another plugin provides it already.
        """
        provider = provider or Provider(name, "", getattr(plugin, "__name__", type(plugin).__name__))
        try:
            components = self._hook_up(plugin, name, provider)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin '{name}' of {provider}: {error}") from error
        self._add(name, provider, components)

    def _hook_up(self, plugin: object, name: str, provider: Provider) -> tuple[Registered, ...]:
        """Register the hooks of one plugin and return its components, all of them usable; or leave no trace of it."""
        if self._pm.is_registered(plugin) or self._pm.has_plugin(name):
            raise ValueError(f"this plugin is registered already, as '{self._pm.get_name(plugin) or name}'")
        try:
            self._pm.register(plugin, name)
            self._pm.check_pending()
            own = [impl for impl in self._pm.hook.compressor_components.get_hookimpls() if impl.plugin is plugin]
            classes = [cls for impl in own for cls in cast("Iterable[Any]", impl.function())]
            components = tuple(_checked(cls, provider) for cls in classes)
            self._check_names(components)
        except BaseException:
            if self._pm.is_registered(plugin):
                self._pm.unregister(plugin)
            raise
        return components

    def _check_names(self, components: Sequence[Registered]) -> None:
        """Raise when one plugin gives a name twice, or when another one gave it already."""
        own = Counter((one.kind, one.name) for one in components)
        for (kind, name), count in own.items():
            if count > 1:
                raise UnusableComponentError(f"it provides {kind} '{name}' {count} times")
        for one in components:
            if (one.kind, one.name) in self._components:
                both = f"by {self.provider(one.kind, one.name)} and by {one.provider}"
                raise ProvidedTwiceError(
                    f"{one.kind} '{one.name}' is provided twice: {both}", hint="uninstall one of the two distributions"
                )

    def _add(self, name: str, provider: Provider, components: tuple[Registered, ...]) -> None:
        self._components |= {(one.kind, one.name): one for one in components}
        self._plugins.append(Plugin(name, provider, components))

    @property
    def hook(self) -> pluggy.HookRelay:
        """The hooks of all plugins: ``registry.hook.compressor_run_step(step=..., session=...)``."""
        return self._pm.hook

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that was loaded, in order."""
        return tuple(self._plugins)

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        """Every plugin that could not be loaded."""
        return tuple(self._failures)

    def components(self) -> Iterator[Registered]:
        """Yield every component as ``(kind, name, cls, provider)``, sorted."""
        return (self._components[key] for key in sorted(self._components))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of every component of a kind, sorted."""
        return tuple(component.name for component in self.components() if component.kind == kind)

    def get(self, kind: str, name: str) -> type[Component]:
        """Return the component class of this kind and name.

        Raises:
            InputError: no such component is installed.
            PluginError: the plugin of that name is installed and failed to load.
        """
        return self._find(kind, name).cls

    def spelled(self, kind: str, text: str) -> type[Component] | None:
        """Return the component class of this kind that a text such as ``4x1`` stands for, options and all, or None."""
        own = (one.cls for one in self.components() if one.kind == kind and one.cls.spelling)
        return next((cls for cls in own if re.fullmatch(cls.spelling, text)), None)

    def provider(self, kind: str, name: str) -> Provider:
        """Return who provides a component; raises what ``get`` raises."""
        return self._find(kind, name).provider

    def _find(self, kind: str, name: str) -> Registered:
        if (kind, name) in self._components:
            return self._components[kind, name]
        for failure in self._failures:
            if failure.entry_point == name:
                raise PluginError(f"{kind} '{name}' is not available: {failure}") from failure.cause
        names = self.names(kind)
        if not (guess := did_you_mean(name, names)):
            broken = ", ".join(f"'{failure.entry_point}'" for failure in self._failures)
            note = f" (plugins that failed to load may provide it: {broken}; see compress plugins)" if broken else ""
            guess = f"; installed: {', '.join(names) or 'none'}{note}"
        raise InputError(f"unknown {kind} '{name}'{guess}")


def _complete(cls: type[Component]) -> None:
    """Resolve the types of a component's options, which pydantic otherwise puts off until a recipe uses them.

    Raises:
        UnusableComponentError: one is not there at run time, or is none that YAML can give.
    """
    try:
        cls.model_rebuild()  # does nothing where they are known already
        cls.model_json_schema()
    except PydanticUndefinedAnnotation as error:
        raise UnusableComponentError(
            f"{cls.__name__}: {error.message}; import the types of options outside TYPE_CHECKING"
        ) from error
    except PydanticInvalidForJsonSchema as error:
        what = f"{cls.kind} '{cls.name}': an option has a type that YAML cannot give"
        raise UnusableComponentError(f"{what}: {error.message}") from error


def _checked(cls: Any, provider: Provider) -> Registered:
    """Check that a plugin gave a usable component class.

    Raises:
        UnusableComponentError: it is no subclass of ``Component``, has no kind or name, or lacks its behaviour.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Component)):
        raise UnusableComponentError(f"it provides {cls!r}; expected a subclass of compressor.plugin.Component")
    for attribute in ("kind", "name"):
        value = getattr(cls, attribute, None)
        if not (isinstance(value, str) and value):
            raise UnusableComponentError(
                f"it provides {cls.__name__} without `{attribute}: ClassVar[str]`; got {value!r}"
            )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise UnusableComponentError(f"it provides {cls.kind} '{cls.name}' without its behaviour: {missing}")
    _complete(cls)
    return Registered(cls.kind, cls.name, cls, provider)
