"""YAML as data: the scalars of YAML 1.2, no key twice, and the line of everything."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compressor.errors import Problem, RecipeError

Trail = tuple[str | int, ...]
"""Where a value stands: ``("steps", 0, "prune")`` is written ``steps.0.prune``."""
Place = tuple[str, int]
"""A file (or an option of the command line) and a line; line 0 = none."""

TAG = "tag:yaml.org,2002:"
SCALARS = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    "float": (
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
}
"""The core schema, https://yaml.org/spec/1.2.2/#103-core-schema: pattern and possible first characters."""


class CoreLoader(yaml.SafeLoader):
    """Resolves scalars as YAML 1.2 does: ``2:4`` and ``no`` are text, ``1e-4`` is a number (PyYAML follows 1.1)."""


CoreLoader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in SCALARS.items():
    CoreLoader.add_implicit_resolver(TAG + _tag, _pattern, _first)


def dotted(trail: Trail) -> str:
    """Write a trail as ``steps.0.prune``."""
    return ".".join(str(part) for part in trail)


@dataclass(frozen=True)
class Document:
    """A file as plain data.

    Attributes:
        data: mappings, lists and scalars.
        source: the file, as errors name it.
        places: file and line of every value, by trail.
        problems: keys given twice, tags and keys that are not plain.
    """

    data: Any
    source: str
    places: Mapping[Trail, Place]
    problems: tuple[Problem, ...] = ()

    def problem(self, trail: Trail, message: str) -> Problem:
        """Return a problem at the line of ``trail``, or of the nearest value around it."""
        known = next((trail[:size] for size in range(len(trail), -1, -1) if trail[:size] in self.places), ())
        source, line = self.places.get(known, (self.source, 0))
        return Problem(source, line, dotted(trail), message)

    def replaced(self, trail: Trail, value: Any, origin: Place) -> Document:
        """Return the document with one value set; ``origin`` is where errors about it say that it is written.

        Mappings on the way are made where nothing is; a list is never made longer.

        Raises:
            RecipeError: the trail leads into a scalar or past the end of a list.
        """
        data = copy.deepcopy(self.data)
        here: Any = data
        real: Trail = ()
        made: dict[Trail, Place] = {}
        for part in trail[:-1]:
            key = self._key(here, part, real, origin)
            if (isinstance(here, dict) and key not in here) or here[key] is None:
                here[key] = {}
                made[*real, key] = origin
            here, real = here[key], (*real, key)
        key = self._key(here, trail[-1], real, origin)
        here[key] = value
        real = (*real, key)
        places = {at: place for at, place in self.places.items() if at[: len(real)] != real}
        return Document(data, self.source, {**places, **made, real: origin}, self.problems)

    @staticmethod
    def _key(here: Any, part: str | int, trail: Trail, origin: Place) -> Any:
        if isinstance(here, dict):
            return part
        if isinstance(here, list):
            if str(part).isdecimal() and int(part) < len(here):
                return int(part)
            found = f"a list of {len(here)}: expected a position from 0 to {len(here) - 1}, got '{part}'"
        else:
            listed = trail and isinstance(trail[-1], int)
            named = isinstance(here, str) and not listed
            tip = f"; write it as a mapping, e.g. {{name: {here}, {part}: ...}}" if named else ""
            found = f"{here!r}, which has no '{part}'{tip}"
        raise RecipeError([Problem(*origin, "", f"{dotted(trail)} is {found}")])


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        RecipeError: the file is missing, empty, not text, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError([Problem(str(path), 0, "", "no such file")]) from error
    except OSError as error:
        raise RecipeError([Problem(str(path), 0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([Problem(str(path), 0, "", f"is not UTF-8 text: {error.reason}")]) from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Document:
    """Parse YAML text; ``source`` is what errors name.

    Raises:
        RecipeError: the text is empty, or not YAML.
    """
    try:
        node = CoreLoader(text).get_single_node()
    except yaml.YAMLError as error:
        raise RecipeError([_syntax_problem(error, source)]) from error
    if node is None:
        raise RecipeError([Problem(source, 0, "", "the file is empty; expected a mapping")])
    reading = _Reading(source)
    data = reading.value(node, ())
    return Document(data, source, reading.places, tuple(reading.problems))


def _syntax_problem(error: yaml.YAMLError, source: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    tip = "; YAML is indented with spaces, not tabs" if "\\t" in what else ""
    return Problem(source, mark.line + 1 if mark else 0, "", f"not valid YAML: {what}{tip}")


@dataclass
class _Reading:
    """Turns nodes into data, noting lines and problems on the way."""

    source: str
    places: dict[Trail, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    above: list[yaml.Node] = field(default_factory=list)

    def value(self, node: yaml.Node, trail: Trail) -> Any:
        self.places.setdefault(trail, (self.source, node.start_mark.line + 1))
        if any(node is ancestor for ancestor in self.above):
            self._report(node, trail, "an alias cannot contain itself")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, trail)
        self.above.append(node)
        data = dict(self._entries(node, trail)) if isinstance(node, yaml.MappingNode) else self._items(node, trail)
        self.above.pop()
        return data

    def _items(self, node: yaml.Node, trail: Trail) -> list[Any]:
        return [self.value(item, (*trail, index)) for index, item in enumerate(node.value)]

    def _entries(self, node: yaml.MappingNode, trail: Trail) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(key, trail, "expected a plain word as key")
                continue
            line = key.start_mark.line + 1
            inner = (*trail, key.value)
            if key.value in seen:
                self._report(key, inner, f"this key was given already in line {seen[key.value]}")
                continue
            seen[key.value] = line
            self.places[inner] = (self.source, line)
            yield key.value, self.value(item, inner)

    def _scalar(self, node: yaml.ScalarNode, trail: Trail) -> Any:
        tag = node.tag.removeprefix(TAG)
        try:
            return _SCALAR_VALUES[tag](node.value)
        except KeyError:
            self._report(node, trail, f"the YAML tag {node.tag!r} is not supported")
        except ValueError:
            self._report(node, trail, f"expected {tag}, as the tag says, got '{node.value}'")
        return None

    def _report(self, node: yaml.Node, trail: Trail, message: str) -> None:
        self.problems.append(Problem(self.source, node.start_mark.line + 1, dotted(trail), message))


def _integer(text: str) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)


_SCALAR_VALUES: Mapping[str, Any] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": lambda text: float(re.sub(r"\.(inf|nan)", r"\1", text.lower())),
}
