"""The lists of a sweep: what ``--over`` and the targets of a recipe give, each with the place that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.errors import InputError, Problem, RecipeError
from compressor.recipe.document import Document, Place, Trail, dotted, parse
from compressor.recipe.expect import shown
from compressor.recipe.loader import Recipe

EXAMPLE = "--over steps.0.prune.target.macs=0.8,0.6,0.4"


@dataclass(frozen=True)
class Axis:
    """Values for one place of a recipe.

    Attributes:
        trail: of the place.
        values: in the order of the list: words, numbers, lists or mappings.
        places: where each is written, for errors about it.
    """

    trail: Trail
    values: tuple[Any, ...]
    places: tuple[Place, ...]

    @property
    def path(self) -> str:
        """The place as recipes write it: ``steps.0.prune.target.macs``."""
        return dotted(self.trail)

    def stands_in(self, other: Axis) -> bool:
        """Tell whether this place is the other's, or inside of it."""
        size = len(other.trail)
        return tuple(map(str, self.trail[:size])) == tuple(map(str, other.trail))


def find_axes(recipe: Recipe, over: Sequence[str]) -> tuple[Axis, ...]:
    """Return the lists that a sweep goes over: those given, then those that stand in the recipe's targets.

    A given list replaces what stands in the recipe at its place and inside of that.

    Args:
        recipe: as it was read.
        over: each ``path=value,value,...``; values are YAML, so commas inside brackets and quotes belong to a value.

    Raises:
        InputError: there is no list; ``RecipeError`` with every mistake: one is empty, is given twice, or is not YAML.
    """
    given = [_given(text) for text in over]
    written = [axis for axis in _written(recipe.document) if not any(axis.stands_in(one) for one in given)]
    axes = (*given, *written)
    if not axes:
        raise InputError(
            f"{recipe.source}: nothing to sweep over: no target holds a list, and --over is not given",
            hint=f"compress sweep {recipe.source} {EXAMPLE}",
        )
    problems = [
        recipe.document.problem(one.trail, "the list is empty; expected values") for one in axes if not one.values
    ]
    paths = [axis.path for axis in axes]
    twice = [path for path in dict.fromkeys(paths) if paths.count(path) > 1]
    problems += [Problem(f"--over {path}", 0, path, "is given twice; write all values into one list") for path in twice]
    if problems:
        raise RecipeError(problems)
    return axes


def _given(over: str) -> Axis:
    where, equals, text = (part.strip() for part in over.partition("="))
    trail = tuple(where.split("."))
    if not (equals and all(trail) and text):
        raise InputError(f"--over {over}: expected path=value,value,..., got '{over}'", hint=EXAMPLE)
    origin = f"--over {where}"
    read = parse(f"[{text}]", origin)
    if read.problems:
        raise RecipeError(read.problems)
    values = read.data
    if len(values) == 1 and isinstance(values[0], list):  # --over path=[0.8, 0.6], as the recipe would have it
        values = values[0]
    return Axis(trail, tuple(values), ((origin, 0),) * len(values))


def _written(document: Document) -> Iterator[Axis]:
    """Yield the lists that stand in the targets of the recipe's steps."""
    steps = document.data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        for verb, options in step.items() if isinstance(step, dict) else ():
            target = options.get("target") if isinstance(options, dict) else None
            for key, values in target.items() if isinstance(target, dict) else ():
                if isinstance(values, list):
                    trail: Trail = ("steps", index, verb, "target", key)
                    found = (document.problem((*trail, number), "") for number in range(len(values)))
                    yield Axis(trail, tuple(values), tuple((problem.source, problem.line) for problem in found))


def unfit(axis: Axis) -> Iterator[tuple[int, Problem]]:
    """Yield the values that a recipe could not have there, by their numbers."""
    for number, (value, place) in enumerate(zip(axis.values, axis.places, strict=True)):
        written = not place[0].startswith("--over ")
        if value is None or (written and isinstance(value, list | dict)):
            expected = "a number, a word, true or false" if written else "a value"
            yield number, Problem(*place, axis.path, f"expected {expected} in the list, got {shown(value)}")
