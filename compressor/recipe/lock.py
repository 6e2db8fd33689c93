"""The lock file: what a run was, spelt out, so that it can be repeated, and what differs when it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compressor.errors import InputError
from compressor.recipe.document import SCALARS, TAG, read_document
from compressor.recipe.loader import is_lock
from compressor.recipe.plan import Plan

HEADER = "# Written by compressor. `recipe` is the whole recipe with every default spelt out.\n"
SUFFIX = ".lock.yaml"


class Row(list[Any]):
    """A list that the lock file has in one row, not with one item a line."""


class CoreDumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or 1.2 would not take for text, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values twice."""
        del data
        return True

    def row(self, data: Row) -> yaml.Node:
        """Write a list between brackets."""
        return self.represent_sequence(f"{TAG}seq", data, flow_style=True)


CoreDumper.add_representer(Row, CoreDumper.row)
for _tag, (_pattern, _first) in SCALARS.items():
    CoreDumper.add_implicit_resolver(TAG + _tag, _pattern, _first)


def locked_facts(
    plan: Plan, *, environment: Mapping[str, Any], hardware: Mapping[str, Any], inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is locked before anything runs, as plain data.

    Args:
        plan: what runs.
        environment: Python and the libraries, e.g. ``{"packages": {"torch": "2.13.0"}}``.
        hardware: what computes, e.g. ``{"device": "cpu"}``.
        inputs: what is read, e.g. the checkpoint's sha256.
    """
    return {
        "digest": plan.digest,
        "source": plan.recipe.source,
        "overrides": list(plan.recipe.overrides),
        "recipe": plan.resolved(),
        "providers": {key: str(provider) for key, provider in plan.providers.items()},
        "environment": dict(environment),
        "hardware": dict(hardware),
        "inputs": dict(inputs),
    }


def lock_text(facts: Mapping[str, Any], *, outputs: Mapping[str, str]) -> str:
    """Return the lock file as YAML.

    Args:
        facts: of ``locked_facts``.
        outputs: sha256 of the files that were made, by name.
    """
    whole = {**facts, "outputs": dict(outputs)}
    return HEADER + yaml.dump(whole, Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=120)


@dataclass(frozen=True)
class Lock:
    """A lock file.

    Attributes:
        path: of the file.
        facts: what was locked before the run.
        outputs: sha256 of the files that the run made, by name.
    """

    path: Path
    facts: Mapping[str, Any]
    outputs: Mapping[str, str]


def read_lock(path: Path) -> Lock:
    """Read a lock file: the one that is named, or ``x.lock.yaml`` beside the recipe ``x.yaml``.

    Raises:
        InputError: there is none, or it does not say what was made.
    """
    data = read_document(path).data
    if not is_lock(data):
        beside = path.with_suffix(SUFFIX)
        if not beside.is_file():
            raise InputError(
                f"{path}: --locked needs a lock file; {path} is a recipe, and {beside} is not there",
                hint="compress apply OUT/recipe.lock.yaml --locked -o OTHER, where OUT is a finished run",
            )
        path, data = beside, read_document(beside).data
    outputs = data.get("outputs") if is_lock(data) else None
    if not (isinstance(outputs, dict) and outputs):
        raise InputError(
            f"{path}: expected the sha256 of what was made under `outputs`, found none: it was written by another "
            "version of compressor, or by hand",
            hint="run it without --locked; the new run's lock file can be replayed",
        )
    return Lock(path, {key: value for key, value in data.items() if key != "outputs"}, outputs)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of plain data with its path: ``("recipe.steps.0.prune.damping", 0.5)``; rows are leaves."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}.{index}")
    else:
        yield path, value
