"""A recipe file as typed data: YAML 1.2 -> ``Recipe``. Nothing is looked up yet; no torch, no plugin."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from compressor.errors import InputError, Problem, RecipeError
from compressor.recipe.document import Document, Place, Trail, parse, read_document
from compressor.recipe.expect import explain, shown
from compressor.recipe.options import FROZEN, CalibrationOptions
from compressor.recipe.verbs import VERBS

NAME = re.compile(r"[\w-][\w.-]*")
"""What a recipe may be called: the name becomes a directory."""


@dataclass(frozen=True)
class ComponentRef:
    """A component by name, with the options that the recipe gives: ``taylor`` or ``{name: taylor, samples: 2048}``."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepRef:
    """One entry of ``steps``: what the recipe says about it, unchecked."""

    index: int
    verb: str
    options: Mapping[str, Any] | str

    @property
    def trail(self) -> Trail:
        """Where the step stands in the recipe."""
        return ("steps", self.index, self.verb)


@dataclass(frozen=True)
class Recipe:
    """What is asked, as pure data.

    Attributes:
        name: of the recipe; the file's by default.
        model: hub id or directory.
        revision: of the hub model.
        task: the task and its options.
        calibration: rows that methods may look at.
        seed: of everything random.
        steps: in order.
        source: the file.
        overrides: what the command line replaced, each as ``path=value``.
        document: the file as read, for the lines of later problems.
        problems: mistakes in the recipe's own keys; ``compile_plan`` raises them together with its own. Where there
            is one, the attribute holds a placeholder.
    """

    name: str
    model: str
    revision: str | None
    task: ComponentRef | None
    calibration: CalibrationOptions
    seed: int
    steps: tuple[StepRef, ...]
    source: str
    overrides: tuple[str, ...] = ()
    document: Document = field(default=Document({}, "", {}), repr=False, compare=False)
    problems: tuple[Problem, ...] = field(default=(), repr=False, compare=False)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        message = f"expected letters, digits, '.', '_' and '-', not starting with '.'; got {shown(name)}"
        raise ValueError(message)
    return name


class RecipeKeys(BaseModel):
    """The keys of a recipe."""

    model_config = FROZEN

    name: Annotated[str, AfterValidator(_checked_name)] | None = Field(
        default=None, description="Name of the recipe, and of its output directory below runs/; default: the file's."
    )
    model: str = Field(min_length=1, description="Hub id or directory of the fine-tuned model.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of the hub model.")
    task: Any = Field(description="The task, by name or as a mapping with its name.")
    calibration: CalibrationOptions = Field(default=CalibrationOptions(), description="Rows that methods may look at.")
    seed: int = Field(default=0, ge=0, strict=True, description="Seed of everything random.")
    steps: list[Any] = Field(min_length=1, description="What is done, in order.")


PLACEHOLDERS: Mapping[str, Any] = {"model": "?", "task": None, "steps": [None]}


def load_recipe(path: str | Path, *, model: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, or the lock file of a run, whose recipe is spelt out in full.

    Relative paths in it are relative to the current directory.

    Args:
        path: the YAML file.
        model: replaces the recipe's model (``-m``).
        overrides: ``task.path=data/glue``, ``steps.0.prune.target.macs=0.5``; values are YAML.

    Raises:
        RecipeError: the file is missing, empty, not YAML or no mapping, or an override leads nowhere. Every other
            mistake is kept in ``Recipe.problems``, so that all of them are reported at once.
    """
    document = _locked(read_document(Path(path)))
    if not isinstance(document.data, dict):
        found = f"expected a mapping with model, task and steps, got {shown(document.data)}"
        raise RecipeError([*document.problems, document.problem((), found)])
    for override in overrides:
        document = _overridden(document, override)
    if model is not None:
        document = document.replaced(("model",), model, ("--model", 0))
    return _recipe(document, (*overrides, *(() if model is None else (f"model={model}",))))


def overridden(recipe: Recipe, override: str, place: Place) -> Recipe:
    """Return a recipe with one more value replaced, as ``--set`` does it.

    Args:
        recipe: as it was read.
        override: ``path=value``.
        place: where the value is written, for errors about it.

    Raises:
        RecipeError: the override leads nowhere.
    """
    return _recipe(_overridden(recipe.document, override, place), (*recipe.overrides, override))


def is_lock(data: Any) -> bool:
    """Tell whether a document is a lock file rather than a recipe."""
    return isinstance(data, dict) and {"digest", "recipe"} <= data.keys()


def _locked(document: Document) -> Document:
    """Return the recipe inside a lock file; any other document as it is."""
    data = document.data
    if not is_lock(data):
        return document
    places = {trail[1:]: place for trail, place in document.places.items() if trail[:1] == ("recipe",)}
    return replace(document, data=data["recipe"], places=places)


def _overridden(document: Document, override: str, place: Place | None = None) -> Document:
    where, equals, text = override.partition("=")
    trail = tuple(where.strip().split("."))
    if not (equals and all(trail)):
        raise InputError(
            f"--set {override}: expected path=value, got '{override}'", hint="--set steps.0.prune.target.macs=0.5"
        )
    origin = f"--set {where.strip()}"
    value = parse(text, origin) if text.strip() else None
    if value is not None and value.problems:
        raise RecipeError(value.problems)
    return _spelt_out(document, trail).replaced(trail, None if value is None else value.data, place or (origin, 0))


def _spelt_out(document: Document, trail: Trail) -> Document:
    """Write the step that ``trail`` leads into as a mapping, where it stands there as ``- verify`` or ``export: onnx``."""
    match trail, document.data:
        case ["steps", str(position), str(verb), *_], {"steps": list(steps)}:
            index = int(position) if position.isdecimal() else len(steps)
        case _:
            return document
    step = steps[index] if index < len(steps) else None
    if step == verb:
        options: dict[str, Any] = {}
    elif isinstance(step, dict) and isinstance(step.get(verb), str) and verb in VERBS and VERBS[verb].key:
        options = {VERBS[verb].key: step[verb]}
    else:
        return document
    return replace(document, data={**document.data, "steps": [*steps[:index], {verb: options}, *steps[index + 1 :]]})


def _recipe(document: Document, overrides: tuple[str, ...]) -> Recipe:
    data, problems = document.data, list(document.problems)
    try:
        keys = RecipeKeys.model_validate(data)
    except ValidationError as error:
        mistakes = explain(error, RecipeKeys, data)
        problems += [document.problem(trail, message) for trail, message in mistakes]
        wrong = {trail[0] for trail, _ in mistakes if trail}
        keys = RecipeKeys.model_validate({**PLACEHOLDERS, **{k: v for k, v in data.items() if k not in wrong}})
    broken = {problem.path for problem in problems}
    name = keys.name or Path(document.source).stem
    if not NAME.fullmatch(name) and "name" not in broken:
        found = f"is missing, and the file's '{name}' has more than letters, digits, '.', '_' and '-'"
        problems.append(document.problem(("name",), found))
    task = _task(document, keys.task, problems) if "task" not in broken else None
    steps = _steps(document, keys.steps, problems) if "steps" not in broken else ()
    return Recipe(
        name=name,
        model=str(Path(keys.model).expanduser()) if keys.model.startswith("~/") else keys.model,
        revision=keys.revision,
        task=task,
        calibration=keys.calibration,
        seed=keys.seed,
        steps=steps,
        source=document.source,
        overrides=overrides,
        document=document,
        problems=tuple(problems),
    )


def _task(document: Document, value: Any, problems: list[Problem]) -> ComponentRef | None:
    if isinstance(value, str):
        return ComponentRef(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return ComponentRef(value["name"], {key: option for key, option in value.items() if key != "name"})
    expected = "expected the name of a task, or a mapping with its name"
    problems.append(document.problem(("task",), f"{expected}, got {shown(value)}"))
    return None


def _steps(document: Document, values: Sequence[Any], problems: list[Problem]) -> tuple[StepRef, ...]:
    steps = []
    for index, value in enumerate(values):
        entry = {value: None} if isinstance(value, str) else value
        if not (isinstance(entry, dict) and len(entry) == 1):
            found = f"the keys {', '.join(entry)}" if isinstance(entry, dict) and entry else shown(value)
            message = f"expected one step, such as 'prune: {{...}}', got {found}"
            problems.append(document.problem(("steps", index), message))
            continue
        verb, options = next(iter(entry.items()))
        if options is None or isinstance(options, dict | str):
            steps.append(StepRef(index, verb, {} if options is None else options))
        else:
            message = f"expected a mapping of options, got {shown(options)}"
            problems.append(document.problem(("steps", index, verb), message))
    return tuple(steps)
