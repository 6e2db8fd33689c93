"""What a node of a Ray cluster does for a sweep: look whether it can work, and do a job as one process would.

What it is sent is an order: names, texts and numbers of the sweep, and the job. It reads the recipe itself, and checks
that it compiles to the same plans with its own plugins.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compressor.errors import CompressorError
from compressor.plugin.registry import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.sweep import compile_sweep
from compressor.run.pipeline import Conditions
from compressor.run.points import Site
from compressor.verify.environment import versions

Order = Mapping[str, Any]
"""What a worker is sent."""


def order_of(site: Site) -> dict[str, Any]:
    """Return what a worker must know of a sweep, as plain data."""
    recipe = site.plan.first.recipe
    return {
        "directory": str(Path.cwd()),
        "recipe": recipe.source,
        "overrides": site.plan.overrides,
        "over": site.plan.over,
        "digest": site.plan.digest,
        "work": str(site.work),
        "device": site.conditions.device.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def look(order: Order) -> dict[str, Any]:
    """Tell, on a node, whether it can work."""
    try:
        seen = Path(order["file"]).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen != order["token"] or not Path(order["directory"]).is_dir():
        place = order["work"] if seen != order["token"] else order["directory"]
        hint = "let -o be, and start in, a directory of a filesystem that all nodes see"
        return {"setup": f"does not see {place}", "hint": hint}
    mine = versions()
    other = [
        f"{name} {mine.get(name)} for {version}"
        for name, version in order["versions"].items()
        if mine.get(name) != version
    ]
    if other:
        return {"setup": f"has other versions: {', '.join(other)}", "hint": "install the same on all nodes"}
    return {"failures": {}}


def perform(order: Order) -> dict[str, Any]:
    """Do a job, on a node."""
    os.chdir(order["directory"])
    with suppress(RuntimeError):
        torch.set_num_threads(order["threads"])
    try:
        registry = Registry.load()
        plan = compile_sweep(load_recipe(order["recipe"], overrides=order["overrides"]), registry, over=order["over"])
        if plan.digest != order["digest"]:
            hint = (
                "install the same plugins in the same versions on all nodes; where their CPUs differ, write what "
                "the options of `auto` are to be, such as quantize's reduce_range"
            )
            return {"setup": "the recipe is another sweep there", "hint": hint}
        site = Site(plan, Path(order["work"]), Conditions(registry, torch.device(order["device"])))
        failures = site.perform(order["job"], order["beside"])
    except CompressorError as error:
        return {"setup": f"{socket.gethostname()}: {error.message}", "hint": error.hint}
    return {"failures": {name: asdict(failure) for name, failure in failures.items()}}
