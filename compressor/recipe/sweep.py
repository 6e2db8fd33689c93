"""A recipe and lists of values for places in it -> one plan per combination; every mistake of every point at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from compressor.errors import Problem, RecipeError
from compressor.plugin import Registry, Target
from compressor.recipe.axes import Axis, find_axes, unfit
from compressor.recipe.expect import shown
from compressor.recipe.loader import Recipe, overridden
from compressor.recipe.plan import Plan, compile_plan

UNFIT = re.compile(r"[^\w.-]+")
"""What a directory's name does not hold."""
LONGEST = 120
"""Characters of a directory's name; what is longer ends in a hash."""


@dataclass(frozen=True)
class Point:
    """One combination of values and what runs with it.

    Attributes:
        name: of its directory: ``macs-0.6``, ``obs_macs-0.6``.
        settings: the values by their places, as the recipe would have them.
        plan: of the recipe with these values.
    """

    name: str
    settings: Mapping[str, Any]
    plan: Plan

    @property
    def call(self) -> str:
        """What is special about the point: ``steps.0.prune.target.macs = 0.4``."""
        return ", ".join(f"{path} = {shown(value)}" for path, value in self.settings.items())

    @cached_property
    def kin(self) -> str:
        """Equal for points that differ in the target of their first step alone, so that one call can prune for all.

        Empty where the first step has no target.
        """
        first = self.plan.steps[0]
        if first.verb != "prune" or not isinstance(getattr(first.component, "target", None), Target):
            return ""
        resolved = self.plan.resolved()
        options = {name: value for name, value in resolved["steps"][0][first.verb].items() if name != "target"}
        return json.dumps({**resolved, "steps": [{first.verb: options}, *resolved["steps"][1:]]}, sort_keys=True)


@dataclass(frozen=True)
class SweepPlan:
    """Plans that differ in the values of some places.

    Attributes:
        paths: of the places: ``steps.0.prune.target.macs``.
        points: in the order of the lists, the last list's values next to each other.
        over: the lists that the command line gave.
        overrides: of the recipe, before the lists.
    """

    paths: tuple[str, ...]
    points: tuple[Point, ...]
    over: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The places, as a title has them."""
        return " x ".join(self.paths)

    @property
    def first(self) -> Plan:
        """Plan of the first point."""
        return self.points[0].plan

    @property
    def digest(self) -> str:
        """Sha256 over the digests of the points, in order."""
        return hashlib.sha256(json.dumps([point.plan.digest for point in self.points]).encode()).hexdigest()

    @property
    def families(self) -> tuple[tuple[Point, ...], ...]:
        """The points that can be pruned together: each family differs in the target of its first step alone."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.kin:
                found.setdefault(point.kin, []).append(point)
        return tuple(tuple(family) for family in found.values() if len(family) > 1)


def compile_sweep(recipe: Recipe, registry: Registry, *, over: Sequence[str] = ()) -> SweepPlan:
    """Compile a recipe once for every combination of the values of its lists.

    Args:
        recipe: targets of it may hold lists where numbers stand.
        registry: what is installed.
        over: more lists, each ``path=value,value,...``; the path is any that ``--set`` takes.

    Raises:
        InputError: there is no list; ``RecipeError`` with every mistake: a list has no values or none that a recipe
            could have there, or two combinations make the same plan.
        PluginError: the recipe needs a plugin that failed to load.
    """
    axes = find_axes(recipe, over)
    wrong = [dict(unfit(axis)) for axis in axes]
    problems = [problem for found in wrong for problem in found.values()]
    usable = [
        [number for number in range(len(axis.values)) if number not in found]
        for axis, found in zip(axes, wrong, strict=True)
    ]
    combinations = list(product(*usable))
    plans: dict[tuple[int, ...], Plan] = {}
    mistakes: dict[Problem, list[tuple[int, ...]]] = {}
    for combination in combinations:
        try:
            plans[combination] = compile_plan(_recipe_at(recipe, axes, combination), registry)
        except RecipeError as error:
            for problem in error.problems:
                mistakes.setdefault(problem, []).append(combination)
    problems += [_within(problem, found, axes) for problem, found in mistakes.items()]
    problems = problems or list(_repeated(axes, plans))
    if problems:
        raise RecipeError(dict.fromkeys(problems))
    names = _names(axes, combinations)
    points = (
        Point(name, {axis.path: axis.values[at] for axis, at in zip(axes, each, strict=True)}, plans[each])
        for name, each in zip(names, combinations, strict=True)
    )
    return SweepPlan(tuple(axis.path for axis in axes), tuple(points), tuple(over), recipe.overrides)


def _recipe_at(recipe: Recipe, axes: Sequence[Axis], combination: Sequence[int]) -> Recipe:
    """Return the recipe with one value of every list, outer places first: another list may stand inside of them."""
    for axis, at in sorted(zip(axes, combination, strict=True), key=lambda pair: len(pair[0].trail)):
        override = f"{axis.path}={json.dumps(axis.values[at], ensure_ascii=False)}"
        recipe = overridden(recipe, override, axis.places[at])
    return recipe


def _within(problem: Problem, found: Sequence[tuple[int, ...]], axes: Sequence[Axis]) -> Problem:
    """Say with which values a mistake appears that not every point has; not where it is one of them that it names."""
    said = []
    for number, axis in enumerate(axes):
        at = {combination[number] for combination in found}
        named = problem.path == axis.path or problem.source == f"--over {axis.path}"
        if len(at) == 1 < len(axis.values) and not named:
            said.append(f"{axis.path} = {shown(axis.values[at.pop()])}")
    return Problem(
        problem.source, problem.line, problem.path, problem.message + f", with {' and '.join(said)}" * bool(said)
    )


def _repeated(axes: Sequence[Axis], plans: Mapping[tuple[int, ...], Plan]) -> Iterator[Problem]:
    """Yield the values that make a plan which other values made before."""
    first: dict[str, tuple[int, ...]] = {}
    for combination, plan in plans.items():
        earlier = first.setdefault(plan.digest, combination)
        if earlier != combination:
            number = next(index for index, at in enumerate(combination) if at != earlier[index])
            axis, at = axes[number], combination[number]
            message = f"{shown(axis.values[at])} asks for the same run as an earlier value of the list"
            yield Problem(*axis.places[at], axis.path, message)


def _names(axes: Sequence[Axis], combinations: Sequence[Sequence[int]]) -> list[str]:
    keys = [str(axis.trail[-1]) for axis in axes]
    keys = [
        f"{key}-" if keys.count(key) == 1 else f"{axis.path.removeprefix('steps.')}-"
        for key, axis in zip(keys, axes, strict=True)
    ]
    keys = ["" if key == "method-" else key for key in keys]  # its values are names already
    names = [
        "_".join(f"{key}{_fit(axis.values[at])}" for key, axis, at in zip(keys, axes, each, strict=True))
        for each in combinations
    ]
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_hash(name)}" for name in names]
    if len({name.casefold() for name in names}) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return names


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _fit(value: Any) -> str:
    """Write a value so that a directory can be called it: ``taylor-samples-64`` of ``{name: taylor, samples: 64}``."""
    if isinstance(value, dict):
        return "-".join(_fit(one) if key in {"name", "method"} else f"{key}-{_fit(one)}" for key, one in value.items())
    if isinstance(value, list):
        return "-".join(map(_fit, value))
    return UNFIT.sub("-", value if isinstance(value, str) else json.dumps(value)).strip("-")
