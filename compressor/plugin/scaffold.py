"""Write the package of a new plugin from the templates beside this file. Importing this module does not import torch."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal

from compressor.errors import InputError
from compressor.plugin.registry import Registry

Kind = Literal["method", "criterion"]
PACKAGE = r"[a-z]([a-z0-9]|[-_](?=[a-z0-9]))*"
"""Package names whose import name and component name follow from them: lower case, single hyphens or underscores."""


@dataclass(frozen=True)
class Scaffold:
    """The package of a plugin that does not exist yet.

    Attributes:
        distribution: what pip installs, e.g. ``my-pruning``; the component is called the same.
        kind: of its one component.
    """

    distribution: str
    kind: Kind

    @property
    def module(self) -> str:
        """Its import name: ``my_pruning``."""
        return self.distribution.replace("-", "_")

    @property
    def title(self) -> str:
        """Its class's name: ``MyPruning``."""
        return "".join(word.capitalize() for word in self.module.split("_"))

    def check(self, registry: Registry) -> None:
        """Check that the names can be used and are free.

        Raises:
            InputError: they cannot, or something installed has them.
        """
        name = self.distribution
        if not re.fullmatch(PACKAGE, name) or keyword.iskeyword(self.module):
            raise InputError(
                f"'{name}' is no package name; expected lower-case letters, digits and single hyphens, a letter first",
                hint="compress new-plugin my-pruning",
            )
        for one in registry.components():
            if (one.kind, one.name) == (self.kind, name):
                raise InputError(
                    f"{self.kind} '{name}' is taken: {one.provider} provides it", hint="choose another name"
                )
        if find_spec(self.module) is not None:
            raise InputError(f"a module '{self.module}' is installed already", hint="choose another name")

    def write(self, directory: Path) -> tuple[Path, ...]:
        """Write the package into a new directory and return its files.

        Raises:
            InputError: the directory exists, or cannot be made.
        """
        try:
            directory.mkdir(parents=True)
        except FileExistsError as error:
            raise InputError(f"{directory}: exists already; nothing was written", hint="-o DIRECTORY") from error
        except OSError as error:
            raise InputError(f"{directory}: cannot be made: {error.strerror}") from error
        return tuple(self._written(directory / place, template) for place, template in self._files().items())

    def _files(self) -> dict[str, str]:
        return {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            "recipe.yaml": f"recipe_{self.kind}.yaml",
            f"src/{self.module}/__init__.py": f"{self.kind}.py",
            f"tests/test_{self.module}.py": f"test_{self.kind}.py",
        }

    def _written(self, path: Path, template: str) -> Path:
        text = files("compressor.plugin").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
        words = {"distribution": self.distribution, "component": self.distribution, "kind": self.kind}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(words, module=self.module, title=self.title), encoding="utf-8")
        return path
