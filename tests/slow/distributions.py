"""Builds wheels and installs them into directories of their own, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run a command, with a directory first on Python's path; return its stdout."""
    python_path = {} if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(
        arguments, cwd=cwd, env={**os.environ, **python_path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path) -> Path:
    """Build the wheel of a source tree."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def build_both(source: Path) -> tuple[Path, Path]:
    """Build the source distribution of a tree, and the wheel from that; return them."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=source)
    (sdist,), (wheel,) = (source / "dist").glob("*.tar.gz"), (source / "dist").glob("*.whl")
    return sdist, wheel


def install_wheel(wheel: Path, site: Path) -> None:
    """Install a wheel alone into a directory."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-index", "--no-deps", "--target", str(site), str(wheel), cwd=wheel.parent)
