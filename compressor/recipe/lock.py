"""The lock file: what a run was, spelt out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from compressor.recipe.document import SCALARS, TAG
from compressor.recipe.plan import Plan

HEADER = "# Written by compressor. `recipe` is the whole recipe with every default spelt out.\n"


class CoreDumper(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.1 or 1.2 would not take for text, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values twice."""
        del data
        return True


for _tag, (_pattern, _first) in SCALARS.items():
    CoreDumper.add_implicit_resolver(TAG + _tag, _pattern, _first)


def lock_text(plan: Plan, *, environment: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Return the lock file as YAML.

    Args:
        plan: what runs.
        environment: plain facts about the machine and its libraries, e.g. ``{"torch": "2.13.0"}``.
        inputs: plain facts about what was read, e.g. the checkpoint's sha256.
    """
    facts = {
        "digest": plan.digest,
        "source": plan.recipe.source,
        "overrides": list(plan.recipe.overrides),
        "recipe": plan.resolved(),
        "providers": {key: str(provider) for key, provider in plan.providers.items()},
        "environment": dict(environment),
        "inputs": dict(inputs),
    }
    return HEADER + yaml.dump(facts, Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=120)
