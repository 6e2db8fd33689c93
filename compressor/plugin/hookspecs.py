"""The two hooks. Everything a recipe picks by name is a component instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from compressor.plugin.components import Component
    from compressor.recipe.plan import Step
    from compressor.run.session import Outcome, Session

PROJECT = "compressor"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def compressor_components() -> Iterable[type[Component]]:  # type: ignore[empty-body]  # a specification has no body
    """Yield the component classes this plugin provides.

    Collected from every plugin; two plugins that give the same (kind, name) are an error naming both.

    Example:
        >>> from compressor.plugin import hookimpl
        >>> @hookimpl
        ... def compressor_components():
        ...     yield RandomPruning
    """


@hookspec(firstresult=True)
def compressor_run_step(step: Step, session: Session) -> Outcome | None:
    """Run one step of a plan.

    The core's implementation is ``trylast`` and always answers. A plugin times, logs, caches or guards steps with
    ``@hookimpl(wrapper=True)``.
    """
