"""A recipe and a list of values for one place in it -> one plan per value; every mistake of every point at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.errors import InputError, Problem, RecipeError
from compressor.plugin import Registry, Target
from compressor.recipe.document import Document, Place, Trail, dotted, parse
from compressor.recipe.expect import shown
from compressor.recipe.loader import Recipe, overridden
from compressor.recipe.plan import Plan, compile_plan

EXAMPLE = "--over steps.0.prune.target.macs=0.8,0.6,0.4"
SHARED = "steps.0.prune.target."
"""What the path of a list starts with when one call of the method can prune for all points."""

UNFIT = re.compile(r"[^\w.-]+")
"""What a directory's name does not hold."""


@dataclass(frozen=True)
class Point:
    """One value and what runs with it.

    Attributes:
        name: of its directory: ``macs-0.6``.
        value: as the recipe would have it.
        plan: of the recipe with this value.
    """

    name: str
    value: Any
    plan: Plan


@dataclass(frozen=True)
class SweepPlan:
    """Plans that differ in one value.

    Attributes:
        path: where the value stands: ``steps.0.prune.target.macs``.
        points: in the order of the list.
    """

    path: str
    points: tuple[Point, ...]

    @property
    def first(self) -> Plan:
        """Plan of the first point."""
        return self.points[0].plan

    @property
    def digest(self) -> str:
        """Sha256 over the digests of the points, in order."""
        return hashlib.sha256(json.dumps([point.plan.digest for point in self.points]).encode()).hexdigest()

    @property
    def shares_pruning(self) -> bool:
        """Whether the points differ in the target of their first step alone, so that one call can prune for all."""
        return self.path.startswith(SHARED) and isinstance(
            getattr(self.first.steps[0].component, "target", None), Target
        )

    def call(self, point: Point) -> str:
        """Say what is special about a point: ``steps.0.prune.target.macs = 0.4``."""
        return f"{self.path} = {shown(point.value)}"


@dataclass(frozen=True)
class _List:
    """The values, the trail of the place they are for, and where each is written."""

    trail: Trail
    values: tuple[Any, ...]
    places: tuple[Place, ...]


def compile_sweep(recipe: Recipe, registry: Registry, *, over: Sequence[str] = ()) -> SweepPlan:
    """Compile a recipe once for every value of its one list.

    Args:
        recipe: a target of it may hold a list where a number stands.
        registry: what is installed.
        over: at most one ``path=value,value,...``; the path is any that ``--set`` takes.

    Raises:
        InputError: there is no list; ``RecipeError`` with every mistake: there are several lists, or a list has no
            values or none that a recipe could have there, or two of them make the same plan.
        PluginError: the recipe needs a plugin that failed to load.
    """
    chosen = _only_list(recipe, over)
    path = dotted(chosen.trail)
    problems = [] if chosen.values else [recipe.document.problem(chosen.trail, "the list is empty; expected values")]
    plans: list[Plan] = []
    for value, place in zip(chosen.values, chosen.places, strict=True):
        if value is None or isinstance(value, list | dict):
            message = f"expected a number, a word, true or false in the list, got {shown(value)}"
            problems.append(Problem(*place, path, message))
            continue
        try:
            override = f"{path}={json.dumps(value, ensure_ascii=False)}"
            plans.append(compile_plan(overridden(recipe, override, place), registry))
        except RecipeError as error:
            problems += error.problems
    problems = problems or _repeated(chosen, plans)
    if problems:
        raise RecipeError(dict.fromkeys(problems))
    names = _names(str(chosen.trail[-1]), chosen.values)
    return SweepPlan(path, tuple(Point(*point) for point in zip(names, chosen.values, plans, strict=True)))


def _only_list(recipe: Recipe, over: Sequence[str]) -> _List:
    if len(over) > 1:
        raise InputError(f"--over is given {len(over)} times; a sweep goes over one list", hint=f"one {EXAMPLE}")
    given = [_given(text) for text in over]
    written = list(_written(recipe.document))
    others = [one for one in written if dotted(one.trail) not in {dotted(each.trail) for each in given}]
    lists = [*given, *others]
    if not lists:
        raise InputError(
            f"{recipe.source}: nothing to sweep over: no target holds a list, and --over is not given",
            hint=f"compress sweep {recipe.source} {EXAMPLE}",
        )
    if len(lists) > 1:
        message = f"is a list, and so is {dotted(lists[0].trail)}; a sweep goes over one list"
        raise RecipeError([recipe.document.problem(one.trail, message) for one in lists[1:]])
    return lists[0]


def _given(over: str) -> _List:
    where, equals, text = (part.strip() for part in over.partition("="))
    trail = tuple(where.split("."))
    if not (equals and all(trail) and text):
        raise InputError(f"--over {over}: expected path=value,value,..., got '{over}'", hint=EXAMPLE)
    origin = f"--over {where}"
    read = parse(f"[{text}]", origin)
    values = read.data
    if len(values) == 1 and isinstance(values[0], list):  # --over path=[0.8, 0.6], as the recipe would have it
        values = values[0]
    return _List(trail, tuple(values), ((origin, 0),) * len(values))


def _written(document: Document) -> Iterator[_List]:
    """Yield the lists that stand in the targets of the recipe's steps."""
    steps = document.data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        for verb, options in step.items() if isinstance(step, dict) else ():
            target = options.get("target") if isinstance(options, dict) else None
            for key, values in target.items() if isinstance(target, dict) else ():
                if isinstance(values, list):
                    trail: Trail = ("steps", index, verb, "target", key)
                    found = (document.problem((*trail, number), "") for number in range(len(values)))
                    yield _List(trail, tuple(values), tuple((problem.source, problem.line) for problem in found))


def _repeated(chosen: _List, plans: Sequence[Plan]) -> list[Problem]:
    digests = [plan.digest for plan in plans]
    message = "{} asks for the same run as an earlier value of the list"
    return [
        Problem(*place, dotted(chosen.trail), message.format(shown(value)))
        for index, (value, place) in enumerate(zip(chosen.values, chosen.places, strict=True))
        if digests[index] in digests[:index]
    ]


def _names(key: str, values: Sequence[Any]) -> list[str]:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    names = [f"{key}-{UNFIT.sub('-', text).strip('-')}" for text in texts]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return names
