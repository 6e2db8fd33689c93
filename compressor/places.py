"""Where this package keeps files of its own: below the user's cache and state directories, by the XDG convention."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Return the directory of what can be measured or made again: ``compressor`` below ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compressor"


def state() -> Path:
    """Return the directory of what tells of the past: ``compressor`` below ``$XDG_STATE_HOME``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "compressor"
