"""neural-compressor's names of options, and ours. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROGRESSIVE, LOCK = "_progressive", "pattern_lock"


def own_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with neural-compressor's names replaced by ours.

    Raises:
        ValueError: an option is given by both names.
    """
    own = {name: value for name, value in data.items() if name not in {"pruning_type", "target_sparsity"}}
    kind, sparsity = data.get("pruning_type"), data.get("target_sparsity")
    said: dict[str, Any] = {} if sparsity is None else {"target": {"sparsity": sparsity}}
    if kind == LOCK:
        said["pattern_lock"] = True
    elif isinstance(kind, str) and kind.endswith(PROGRESSIVE):
        said |= {"criterion": kind.removesuffix(PROGRESSIVE), "progressive": True}
    elif kind is not None:
        said["criterion"] = kind
    for name in said.keys() & own.keys():
        alias = "target_sparsity" if name == "target" else "pruning_type"
        message = f"expected {name} or {alias}, which is another name for it; got both"
        raise ValueError(message)
    return {**own, **said}
