"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "compressor").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
BANNED = re.compile(r"Manager|Handler|Helper|Utils|Factory|Wrapper|Base[A-Z]|Processor|(?<![a-z])(do|process|misc)_")
UNSAFE = re.compile(
    r"torch\.load\((?!.*weights_only=True)|pickle\.load|yaml\.load\(|\beval\(|shell=True|\.cuda\(|ignore_mismatched_sizes=True"
)


def names_of(path: Path) -> list[str]:
    """Return the names a module defines: classes, functions, and their parameters."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_a_thing_is(path: Path):
    assert [name for name in names_of(path) if BANNED.search(name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path):
    limit = 160 if "plugins" in path.relative_to(ROOT).parts else 260
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_under_80_lines(path: Path):
    functions = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 80] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe_is_called(path: Path):
    lines = [line for line in path.read_text().splitlines() if ".eval()" not in line]
    assert [line for line in lines if UNSAFE.search(line)] == []


def test_what_is_unsafe_is_known():
    unsafe = ("torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)")
    assert all(UNSAFE.search(line) for line in unsafe)
    assert not UNSAFE.search('torch.load(path, map_location="cpu", weights_only=True)')


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_steps_assigns_to_a_session(path: Path):
    if path == ROOT / "compressor" / "run" / "steps.py":
        return
    targets = [
        target
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    attributes = [t for t in targets if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name)]
    assert [t.attr for t in attributes if t.value.id == "session"] == []


LATE = {Path("compressor/__init__.py"), *(Path("compressor/cli") / name for name in ("run.py", "sweeps.py"))}
"""Where torch enters, and ``compressor.load``, which is imported when it is asked for."""


PLUGINS = "compressor_plugins"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_kind_of_plugin_has_its_private_modules_for_itself(path: Path):
    own = path.relative_to(ROOT).parts[2:3]
    froms = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    named = [f"{node.module}.{alias.name}".split(".") for node in froms for alias in node.names]
    private = [name for name in named if name[0] == PLUGINS and any(part.startswith("_") for part in name[1:])]
    assert [".".join(name) for name in private if name[1:2] != [*own]] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_our_own_modules_are_imported_at_the_top(path: Path):
    if path.relative_to(ROOT) in LATE or path.relative_to(ROOT).parts[0] == "plugins":
        return
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    inside = [node for function in functions for node in ast.walk(function)]
    named = [alias.name for node in inside if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in inside if isinstance(node, ast.ImportFrom)]
    assert [name for name in named if name.partition(".")[0] in {"compressor", "compressor_plugins"}] == []


@pytest.mark.parametrize(
    "code",
    [
        "import compressor",
        "import compressor.plugin",
        "from compressor.cli import main; main(['--help'], standalone_mode=False)",
        "from compressor.cli import main; main(['--version'], standalone_mode=False)",
        "from compressor.plugin.registry import Registry; assert not Registry.load().failures",
    ],
)
def test_torch_is_not_imported(code: str):
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets'}"
    check = f"import sys\n{code}\nfound = {heavy} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
