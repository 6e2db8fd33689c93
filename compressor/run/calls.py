"""Calls into plugins: whatever goes wrong inside one gets its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compressor.errors import CompressorError, PluginError
from compressor.plugin.components import Component


@contextmanager
def plugin_call(component: Component, place: str) -> Iterator[None]:
    """Name the component in whatever goes wrong inside it.

    Args:
        component: what is called.
        place: where in the run, for the message: ``step 01-prune``.

    Raises:
        PluginError: it raised something that is not a ``CompressorError``.
    """
    try:
        yield
    except CompressorError:
        raise
    except Exception as error:  # a plugin may raise anything: this is where it gets its name
        raise PluginError(
            f"{place}: {component.kind} '{component.name}' ({type(component).__module__}) failed: "
            f"{type(error).__name__}: {error}",
            hint="report it to the plugin's authors; compress apply keeps the traceback in logs/run.log of the run",
        ) from error
