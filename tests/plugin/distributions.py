"""Installs distributions into a directory, as pip would: what entry points are read from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TOYS = {"toys": "tests.plugin.toy_plugin"}


def install(
    directory: Path,
    name: str,
    entry_points: Mapping[str, str],
    *,
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
) -> None:
    """Write a distribution's metadata, and its modules, into ``directory``."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[compressor]", *lines]))
    for module, source in (modules or {}).items():
        (directory / f"{module}.py").write_text(source)
