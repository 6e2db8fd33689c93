"""The verbs that need no torch: check, plan, components, plugins, schema."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from compressor.cli.boundary import show
from compressor.cli.completing import RecipePath, complete_word
from compressor.cli.options import json_option, model_option, set_option
from compressor.errors import InputError, RecipeError, did_you_mean
from compressor.plugin import Registry
from compressor.plugin.registry import Registered
from compressor.recipe.expect import describe, option_schema
from compressor.recipe.inputs import input_mistakes, train_samples
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import Plan, compile_plan, core_provider
from compressor.recipe.schema import recipe_schema
from compressor.recipe.verbs import VERBS


def console() -> Console:
    """Return the console for results: stdout, nothing highlighted, nothing cut, wide where it is no terminal."""
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def write_json(data: Any) -> None:
    """Write data to stdout as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout; long cells go on in the next line, nothing is cut."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


@click.command()
@click.argument("recipes", nargs=-1, required=True, type=RecipePath())
@model_option
@set_option
@json_option
def check(recipes: tuple[str, ...], model: str | None, overrides: tuple[str, ...], *, as_json: bool) -> int:
    """Return 2 when a recipe has mistakes."""
    registry = Registry.load()
    results = []
    for path in recipes:
        try:
            asked = load_recipe(path, model=model, overrides=overrides)
            digest = compile_plan(asked, registry, look=input_mistakes).digest
        except RecipeError as error:
            results.append({"recipe": path, "digest": None, "problems": [vars(one) for one in error.problems]})
            if not as_json:
                show(error)
        else:
            results.append({"recipe": path, "digest": digest, "problems": []})
            if not as_json:
                click.echo(f"{path}: ok ({digest[:12]})")
    if as_json:
        write_json(results)
    return RecipeError.exit_code if any(result["problems"] for result in results) else 0


@click.command()
@click.argument("recipe", type=RecipePath())
@model_option
@set_option
@json_option
def plan(recipe: str, model: str | None, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Write the plan as lines or as JSON."""
    asked = load_recipe(recipe, model=model, overrides=overrides)
    compiled = compile_plan(asked, Registry.load(), look=input_mistakes)
    if as_json:
        write_json(plan_data(compiled))
    else:
        console().print(plan_text(compiled))


def plan_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data."""
    return {
        "source": plan.recipe.source,
        "overrides": list(plan.recipe.overrides),
        "digest": plan.digest,
        "recipe": plan.resolved(),
        "train_samples": train_samples(plan),
        "steps": [{"slug": step.slug, "path": step.path, "call": repr(step)} for step in plan.steps],
        "providers": {key: vars(provider) for key, provider in plan.providers.items()},
        "lints": list(plan.lints),
    }


def plan_text(plan: Plan) -> str:
    """Return a plan as lines: load, calibrate, one call per step, the digest, the remarks."""
    calibration = plan.calibration
    amount = f"{calibration.tokens} tokens" if calibration.tokens else f"{calibration.samples} samples"
    rows = f"{amount} of the train split"
    there = train_samples(plan)
    if there is not None and not calibration.tokens and there < calibration.samples:
        rows = f"{there} samples, all of the train split ({calibration.samples} are asked for)"
    revision = f" at {plan.recipe.revision}" if plan.recipe.revision else ""
    stages = [
        ("load", f"{plan.recipe.model}{revision} for {plan.task!r}"),
        ("calibrate", f"{rows}, batches of {calibration.batch_size}, seed {calibration.seed}"),
        *((step.slug, repr(step)) for step in plan.steps),
    ]
    width = max(len(name) for name, _ in stages)
    return "\n".join(
        [
            f"{plan.recipe.name} ({plan.recipe.source}), seed {plan.recipe.seed}",
            *(f"  {name:<{width}}  {call}" for name, call in stages),
            f"digest {plan.digest}",
            *(f"note: {remark}" for remark in plan.lints),
        ]
    )


@click.command()
@click.argument("word", metavar="[KIND|NAME]", required=False, shell_complete=complete_word)
@json_option
def components(word: str | None, *, as_json: bool) -> None:
    """Write a table, or the parts of every component of the name."""
    core = [
        Registered(verb.component.kind, verb.component.name, verb.component, core_provider(verb.component))
        for verb in VERBS.values()
        if verb.component
    ]
    known = [*Registry.load().components(), *core]
    named = [one for one in known if one.name == word]
    listed = named or [one for one in known if word in {None, one.kind}]
    if not listed:
        words = {text for one in known for text in (one.kind, one.name)}
        raise InputError(
            f"no component and no kind is called '{word}'{did_you_mean(str(word), words)}", hint="compress components"
        )
    if as_json:
        write_json([component_data(one) for one in listed])
    elif named:
        console().print("\n\n".join(component_text(one) for one in named))
    else:
        rows = [(one.kind, one.name, one.provider.distribution, summary(one.cls)) for one in listed]
        write_table(("kind", "name", "provider", "what it is"), rows)


def summary(cls: type[BaseModel]) -> str:
    """Return the first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def option_rows(cls: type[BaseModel]) -> list[dict[str, Any]]:
    """Return name, expectation, default and description of every option."""
    schema = option_schema(cls)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "expects": describe(option, schema),
            "required": name in required,
            "default": option.get("default"),
            "description": option.get("description", ""),
        }
        for name, option in schema.get("properties", {}).items()
    ]


def component_data(one: Registered) -> dict[str, Any]:
    """Return a component as plain data."""
    return {
        "kind": one.kind,
        "name": one.name,
        "provider": vars(one.provider),
        "description": inspect.getdoc(one.cls) or "",
        "options": option_rows(one.cls),
    }


def component_text(one: Registered) -> str:
    """Return a component and its options as lines."""
    lines = [f"{one.kind} {one.name}, from {one.provider}", "", inspect.getdoc(one.cls) or ""]
    rows = option_rows(one.cls)
    if rows:
        lines += ["", "options:"]
    for row in rows:
        default = "required" if row["required"] else f"default {json.dumps(row['default'])}"
        lines.append(f"  {row['name']}: {row['expects'] or 'anything'}; {default}")
        if row["description"]:
            lines.append(f"      {row['description']}")
    return "\n".join(lines)


@click.command()
@click.option("--requirements", is_flag=True, help="Print the plugins' distributions as pip requirements.")
@json_option
def plugins(*, requirements: bool, as_json: bool) -> None:
    """Write a table, and a line for every plugin that failed to load or clashes with another."""
    registry = Registry.load(strict=False)
    if requirements:
        providers = [plugin.provider for plugin in registry.plugins]
        pins = sorted({f"{provider.distribution}=={provider.version}" for provider in providers})
        if as_json:
            write_json(pins)
        else:
            click.echo("\n".join(pins))
        return
    rows = [
        {
            "entry_point": plugin.entry_point,
            "provider": vars(plugin.provider),
            "components": [f"{one.kind}:{one.name}" for one in plugin.components],
            "error": None,
        }
        for plugin in registry.plugins
    ]
    rows += [
        {"entry_point": bad.entry_point, "provider": vars(bad.provider), "components": [], "error": bad.error}
        for bad in registry.failures
    ]
    if as_json:
        write_json(rows)
        return
    loaded = [
        (plugin.entry_point, str(plugin.provider), ", ".join(f"{one.kind} {one.name}" for one in plugin.components))
        for plugin in registry.plugins
    ]
    write_table(("plugin", "provider", "components"), loaded)
    for failure in registry.failures:
        click.secho(str(failure), fg="red")


@click.command()
@json_option
def schema(*, as_json: bool) -> None:
    """Write the schema."""
    del as_json  # it is JSON
    write_json(recipe_schema(Registry.load()))
