"""What holds of a component before it does anything: its options, its words, its imports."""

# ruff: noqa: S101, S603 - assertions are what this module is for; the process started is Python

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from compressor.errors import CompressorError
from compressor.plugin import Component, Registry
from compressor.recipe.expect import option_schema

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "datasets")
PROBE = """
import importlib, json, sys
sys.path[:] = {path}
from compressor.plugin import Registry
{load}
print(json.dumps([[name for name in {heavy} if name in sys.modules], [name for name in sys.modules]]))
"""


def assert_declaration_conforms(component: Component) -> None:
    """Assert what every component must keep, whatever its contract. The other assertions begin with this one.

    It has a kind, a name and a docstring of its own; it is frozen and refuses unknown options; every option has a
    description and a type that YAML can give; all options, defaults included, validate back to an equal component; and
    importing its module imports neither torch nor its like, so that recipes are checked at once.
    """
    cls = type(component)
    label = f"{cls.kind} '{cls.name}'"
    assert cls.kind, f"{cls.__name__}: kind is empty"
    assert cls.name, f"{cls.__name__}: name is empty"
    assert (inspect.getdoc(cls) or "").strip() and vars(cls).get("__doc__"), f"{label}: expected a docstring"  # noqa: PT018 - one claim
    assert cls.model_config.get("frozen"), f"{label}: expected a frozen declaration"
    assert cls.model_config.get("extra") == "forbid", f"{label}: expected unknown options to be refused"
    bare = [name for name, field in cls.model_fields.items() if not field.description]
    assert not bare, f"{label}: expected a description of {', '.join(bare)}"
    option_schema(cls)
    options = json.loads(json.dumps(component.options(), allow_nan=False))
    again = cls.model_validate(options, context={"registry": Registry.load()})
    assert again == component, f"{label}: its options {options} validate to {again!r}; expected {component!r}"
    heavy = heavy_imports(cls.__module__)
    assert not heavy, f"{label}: importing {cls.__module__} imports {', '.join(heavy)}; import them inside its method"


def heavy_imports(module: str) -> tuple[str, ...]:
    """Return what a module must not import when a recipe is checked, and does; found out in a process of its own."""
    if module not in sys.modules or not getattr(sys.modules[module], "__file__", None):
        return ()  # made at run time, in a notebook or a test: nothing to import
    heavy, loaded = _imported("Registry.load(strict=False)", tuple(sys.path))
    if not heavy and module in loaded:
        return ()
    return _imported(f"importlib.import_module({module!r})", tuple(sys.path))[0]


@cache
def _imported(load: str, path: tuple[str, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    code = PROBE.format(load=load, path=list(path), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    heavy, loaded = json.loads(done.stdout.splitlines()[-1])
    return tuple(heavy), frozenset(loaded)


@contextmanager
def asserted(component: Component) -> Iterator[None]:
    """Turn an error of this package into a failed assertion that names the component."""
    try:
        yield
    except CompressorError as error:
        raise AssertionError(f"{component.kind} '{component.name}': {error}") from error
