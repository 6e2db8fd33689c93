"""What is installed: every component by kind and name, who provides it, and the hooks. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, cast

import pluggy
from pydantic import PydanticUndefinedAnnotation

from compressor.errors import InputError, PluginError, did_you_mean
from compressor.plugin import hookspecs
from compressor.plugin.components import Component


@dataclass(frozen=True)
class Provider:
    """Who a plugin comes from: a distribution, its version, and the module inside it."""

    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.distribution, self.version)))} ({self.module})"


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that is installed and cannot be used, and why."""

    entry_point: str
    provider: Provider
    error: str

    def __str__(self) -> str:
        return f"plugin '{self.entry_point}' of {self.provider} failed to load: {self.error}"


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

    Filled once by ``load``; afterwards only ``register`` adds to it, which is how the core adds its own hooks.
    """

    def __init__(self) -> None:
        self._pm = pluggy.PluginManager(hookspecs.PROJECT)
        self._pm.add_hookspecs(hookspecs)
        self._components: dict[tuple[str, str], Registered] = {}
        self._plugins: list[Plugin] = []
        self._failures: list[PluginFailure] = []

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None) -> Registry:
        """Load the plugins behind the entry points of group ``compressor`` (or behind the given ones).

        A plugin that fails to import, or misspells a hook, is kept in ``failures`` and does no other harm.

        Raises:
            PluginError: two plugins provide the same (kind, name), or one provides what is no component.
        """
        registry = cls()
        for point in entry_points(group=hookspecs.PROJECT) if points is None else points:
            registry._load(point)
        return registry

    def _load(self, point: EntryPoint) -> None:
        provider = Provider(
            distribution=point.dist.name if point.dist else "(no distribution)",
            version=point.dist.version if point.dist else "",
            module=point.value,
        )
        try:
            plugin = point.load()
            classes = self._hook_up(plugin, f"{provider.distribution}:{point.name}")
        except Exception as error:  # noqa: BLE001 - importing a stranger's module can raise anything; it is reported
            self._failures.append(PluginFailure(point.name, provider, f"{type(error).__name__}: {error}"))
            return
        self._add(point.name, provider, classes)

    def register(self, plugin: object, name: str, *, provider: Provider | None = None) -> None:
        """Add a module (or any object with hook implementations) that is not behind an entry point.

        Raises:
            PluginError: a hook is misspelt, or a component is already provided by another plugin.
        """
        provider = provider or Provider(name, "", getattr(plugin, "__name__", type(plugin).__name__))
        try:
            classes = self._hook_up(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin '{name}' of {provider}: {error}") from error
        self._add(name, provider, classes)

    def _hook_up(self, plugin: object, name: str) -> list[Any]:
        """Register the hooks of one plugin and return what it yields as components."""
        if self._pm.is_registered(plugin) or self._pm.has_plugin(name):
            raise ValueError(f"this plugin is registered already, as '{self._pm.get_name(plugin) or name}'")
        try:
            self._pm.register(plugin, name)
            self._pm.check_pending()
            own = [impl for impl in self._pm.hook.compressor_components.get_hookimpls() if impl.plugin is plugin]
            classes = [cls for impl in own for cls in cast("Iterable[Any]", impl.function())]
            for cls in classes:
                _complete(cls)
        except BaseException:
            if self._pm.is_registered(plugin):
                self._pm.unregister(plugin)
            raise
        return classes

    def _add(self, name: str, provider: Provider, classes: Iterable[Any]) -> None:
        components = tuple(_checked(cls, provider) for cls in classes)
        for component in components:
            key = component.kind, component.name
            if key in self._components:
                raise PluginError(
                    f"{component.kind} '{component.name}' is provided twice: by {self._components[key].provider} "
                    f"and by {provider}",
                    hint="uninstall one of the two distributions",
                )
            self._components[key] = component
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

    def provider(self, kind: str, name: str) -> Provider:
        """Return who provides a component; raises what ``get`` raises."""
        return self._find(kind, name).provider

    def _find(self, kind: str, name: str) -> Registered:
        if (kind, name) in self._components:
            return self._components[kind, name]
        for failure in self._failures:
            if failure.entry_point == name:
                raise PluginError(f"{kind} '{name}' is not available: {failure}")
        names = self.names(kind)
        guess = did_you_mean(name, names)
        if not guess:
            broken = ", ".join(f"'{failure.entry_point}'" for failure in self._failures)
            note = f" (plugins that failed to load may provide it: {broken}; see compress plugins)" if broken else ""
            guess = f"; installed: {', '.join(names) or 'none'}{note}"
        raise InputError(f"unknown {kind} '{name}'{guess}")


def _complete(cls: Any) -> None:
    """Resolve the types of a component's options, which pydantic otherwise puts off until a recipe uses them.

    Raises:
        ValueError: one is not there at run time.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Component)) or cls.__pydantic_complete__:
        return
    try:
        cls.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        message = f"{cls.__name__}: {error.message}; import the types of options outside TYPE_CHECKING"
        raise ValueError(message) from error


def _checked(cls: Any, provider: Provider) -> Registered:
    """Check that a plugin gave a usable component class.

    Raises:
        PluginError: it is no subclass of ``Component``, has no kind or name, or lacks its behaviour.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Component)):
        raise PluginError(f"{provider} provides {cls!r}; expected a subclass of compressor.plugin.Component")
    for attribute in ("kind", "name"):
        value = getattr(cls, attribute, None)
        if not (isinstance(value, str) and value):
            raise PluginError(f"{provider} provides {cls.__name__} without `{attribute}: ClassVar[str]`; got {value!r}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise PluginError(f"{provider} provides {cls.kind} '{cls.name}' without its behaviour: {missing}")
    return Registered(cls.kind, cls.name, cls, provider)
