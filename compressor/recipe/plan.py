"""Recipe x registry -> plan: every name looked up, every option checked, every mistake reported at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from compressor.errors import InputError, RecipeError, did_you_mean, nearest_directory
from compressor.plugin import Component, Provider, PruningMethod, Registry, Task
from compressor.plugin.component import nested
from compressor.recipe.document import Trail
from compressor.recipe.expect import explain, shown
from compressor.recipe.lint import lint
from compressor.recipe.loader import Recipe, StepRef
from compressor.recipe.options import CalibrationOptions
from compressor.recipe.verbs import VERBS, Verb

DISTRIBUTION = "compressor-onnx"
ONCE = {"export", "quantize", "verify"}
"""Verbs that a recipe has at most once: the report and the files at the root are those of one step."""
Mistake = tuple[Trail, str]


@dataclass(frozen=True)
class Step:
    """One step of a plan; its repr is the call."""

    index: int
    verb: str
    component: Component

    @property
    def slug(self) -> str:
        """Name of the step's stage directory: ``01-prune``."""
        return f"{self.index + 1:02d}-{self.verb}"

    @property
    def path(self) -> str:
        """Where the step stands in the recipe: ``steps.0.prune``."""
        return f"steps.{self.index}.{self.verb}"

    @property
    def reads_texts(self) -> bool:
        """Whether it decides by the tokenizer and every train row."""
        return isinstance(self.component, PruningMethod) and self.component.reads_texts

    def __repr__(self) -> str:
        """Return the call: ``prune(fisher(target=Target(macs=0.6)))``; for a step of the core, the call alone."""
        core = VERBS[self.verb].component is not None
        return repr(self.component) if core else f"{self.verb}({self.component!r})"


@dataclass(frozen=True)
class Plan:
    """Checked calls, in order.

    Attributes:
        recipe: what was asked.
        task: data and metric.
        calibration: the recipe's, its seed filled in.
        steps: in order.
        digest: sha256 over everything that changes the result: the model's name, every option of every component
            (nested ones included), and who provides it in which version.
        lints: remarks that stop nothing.
        providers: of every component in use, by ``kind:name``.
    """

    recipe: Recipe
    task: Task
    calibration: CalibrationOptions
    steps: tuple[Step, ...]
    digest: str
    lints: tuple[str, ...]
    providers: Mapping[str, Provider]

    def resolved(self) -> dict[str, Any]:
        """Return the recipe with every option spelt out, defaults included; as a file it compiles to the same plan."""
        return {"name": self.recipe.name, **_resolved(self.recipe, self.task, self.calibration, self.steps)}


Look = Callable[[Recipe, Task | None, Sequence[Step]], Iterable[Mistake]]
"""Finds mistakes in the files that a recipe names, given what could be read of it."""


def compile_plan(recipe: Recipe, registry: Registry, *, look: Look | None = None) -> Plan:
    """Look up and check everything a recipe names, without torch.

    Args:
        recipe: what is asked.
        registry: of the components.
        look: finds mistakes in the files that are named, too.

    Raises:
        RecipeError: with every mistake of the recipe, its lines and paths.
        PluginError: the recipe needs a plugin that failed to load.
    """
    checking = _Checking(registry, [*_model_mistakes(recipe.model), *_order_mistakes(recipe.steps)])
    task = checking.task(recipe)
    steps = [checking.step(step) for step in recipe.steps]
    if look is not None:
        checking.mistakes += look(recipe, cast("Task | None", task), [step for step in steps if step])
    if recipe.problems or checking.mistakes:
        found = [recipe.document.problem(trail, message) for trail, message in checking.mistakes]
        raise RecipeError([*recipe.problems, *found])
    return _plan(recipe, cast("Task", task), tuple(step for step in steps if step), registry)


def _plan(recipe: Recipe, task: Task, steps: tuple[Step, ...], registry: Registry) -> Plan:
    seed = recipe.seed if recipe.calibration.seed is None else recipe.calibration.seed
    calibration = recipe.calibration.model_copy(update={"seed": seed})
    used = [component for top in (task, *(step.component for step in steps)) for component in nested(top)]
    providers = {f"{one.kind}:{one.name}": _provider(one, registry) for one in used}
    canonical = {
        **_resolved(recipe, task, calibration, steps),
        "providers": {key: str(provider) for key, provider in providers.items()},
        DISTRIBUTION: version(DISTRIBUTION),
    }
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()
    return Plan(recipe, task, calibration, steps, digest, lint(steps), providers)


def _resolved(recipe: Recipe, task: Task, calibration: CalibrationOptions, steps: Sequence[Step]) -> dict[str, Any]:
    return {
        "model": recipe.model,
        "revision": recipe.revision,
        "task": {"name": task.name, **task.options()},
        "calibration": calibration.options(),
        "seed": recipe.seed,
        "steps": [{step.verb: {**_selector(step), **step.component.options()}} for step in steps],
    }


def _selector(step: Step) -> dict[str, str]:
    key = VERBS[step.verb].key
    return {key: step.component.name} if key else {}


def _provider(component: Component, registry: Registry) -> Provider:
    if any(verb.component is type(component) for verb in VERBS.values()):
        return core_provider(type(component))
    return registry.provider(component.kind, component.name)


def core_provider(cls: type[Component]) -> Provider:
    """Return the provider of a component that belongs to the core."""
    return Provider(DISTRIBUTION, version(DISTRIBUTION), cls.__module__)


@dataclass
class _Checking:
    """Checks one part after another; None is what cannot be used, and ``mistakes`` says why.

    ``found`` is the task: what suits it is part of what other components are checked for.
    """

    registry: Registry
    mistakes: list[Mistake]
    found: Component | None = None

    def task(self, recipe: Recipe) -> Component | None:
        if recipe.task is None:
            return None
        at: Trail = ("task", "name") if isinstance(recipe.document.data["task"], dict) else ("task",)
        cls = self._find("task", recipe.task.name, at)
        self.found = self._validated(cls, recipe.task.options, ("task",)) if cls else None
        return self.found

    def step(self, step: StepRef) -> Step | None:
        verb = VERBS.get(step.verb)
        if verb is None:
            guess = did_you_mean(step.verb, VERBS)
            message = f"unknown step '{step.verb}'{guess}; known steps: {', '.join(VERBS)}"
            self.mistakes.append((step.trail, message))
            return None
        short = isinstance(step.options, str)
        if short and not verb.key:
            self.mistakes.append((step.trail, f"expected a mapping of options, got {shown(step.options)}"))
            return None
        options = {verb.key: step.options} if isinstance(step.options, str) else dict(step.options)
        cls = verb.component or self._chosen(verb, options, step.trail if short else (*step.trail, verb.key))
        component = self._validated(cls, options, step.trail) if cls else None
        return Step(step.index, step.verb, component) if component else None

    def _chosen(self, verb: Verb, options: dict[str, Any], at: Trail) -> type[Component] | None:
        """Take the component's name out of the options and look it up."""
        name = options.pop(verb.key, verb.default)
        if isinstance(name, str):
            return self._find(verb.kind, name, at)
        known = ", ".join(self.registry.names(verb.kind)) or "none is installed"
        found = "is missing" if name is None else f"got {shown(name)}"
        self.mistakes.append((at, f"{found}; expected the name of a {verb.kind}: {known}"))
        return None

    def _find(self, kind: str, name: str, at: Trail) -> type[Component] | None:
        try:
            return self.registry.get(kind, name)
        except InputError as error:
            self.mistakes.append((at, error.message))
            return None

    def _validated(self, cls: type[Component], options: Mapping[str, Any], inside: Trail) -> Component | None:
        try:
            return cls.model_validate(options, context={"registry": self.registry, "task": self.found})
        except ValidationError as error:
            found = explain(error, cls, options, self.registry)
            self.mistakes += [((*inside, *trail), message) for trail, message in found]
            return None


def _order_mistakes(steps: Sequence[StepRef]) -> Iterator[Mistake]:
    """Yield steps that come too early, too late, or again.

    Pruning changes the model, export writes it, quantize makes another file of that one, verify reads them; a run has one
    exported file and one report of it.
    """
    seen: set[str] = set()
    for step in steps:
        exported = "export" in seen
        if step.verb == "prune" and exported:
            yield step.trail, "expected before export: what is pruned now would not be in the exported file"
        if step.verb == "train" and exported:
            yield step.trail, "expected before export: what is trained now would not be in the exported file"
        if step.verb in {"quantize", "verify"} and not exported:
            yield step.trail, "expected after an export step: it works on the exported file"
        if step.verb == "quantize" and "verify" in seen:
            yield step.trail, "expected before verify: what is quantised now would not be verified"
        if step.verb in ONCE & seen:
            yield step.trail, f"expected one {step.verb} step in a recipe, this is another"
        seen.add(step.verb)


def _local(text: str) -> bool:
    """Tell whether a text is a path on this machine rather than a hub id, which is ``name`` or ``owner/name``."""
    return text.startswith((".", "/", "~")) or text.count("/") > 1


def _model_mistakes(model: str) -> Iterator[Mistake]:
    path = Path(model)
    if path.is_dir():
        return
    if path.exists():
        yield ("model",), f"expected a directory, got the file '{model}'"
    elif _local(model):
        near = nearest_directory(path)
        guess = f"; did you mean '{near}'?" if near else ""
        expected = "expected a checkpoint directory or a hub id (-m replaces it)"
        yield ("model",), f"no such directory: '{model}'{guess}; {expected}"
