"""Every block of every document is executed, compiled or parsed; ``tests/documents.py`` says which is which."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from compressor.cli import VERBS, main
from compressor.errors import RecipeError
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.recipe.sweep import compile_sweep
from compressor.testing import tiny_checkpoint
from tests.documents import PAGES, ROOT, SHELLS, Block, Command, blocks, commands
from tests.lookup import hurry
from tests.toys import write_rows

KNOWN = {*SHELLS, "yaml", "python", "toml", "json", "text", "csv", "jsonl", "conll", "", "{toctree}"}
BLOCKS = [block for path in PAGES for block in blocks(path)]
WALKED = sorted({block.page for block in BLOCKS if block.mark == "run"})
DATA = re.compile(r": (\w+\.(?:csv|tsv|jsonl?|parquet|txt|conll|bin))\b")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
CODES = {"apply": {0, 1}, "sweep": {0, 1}, "verify": {0, 1}, "doctor": {0, 3}}
"""Exit codes that a toy may end with: its labels are random and this machine is busy, so its gates may fail."""

COMPLETION = {
    "name": "name: page",
    "model": "model: my-model",
    "task": "task: {name: glue, subset: mrpc}",
    "steps": "steps: [export]",
}
"""What a recipe of a page gets that shows a part of one."""

SIDE = {"architecture", "patterns", "gradual", "cap", "heads"}
"""Pages to which the index leads through its menu alone."""
CHEAPER = {"apply": ("--set", "steps.1.export.fused=false")}
"""What is added to a command when a page is walked through: fused files are exported elsewhere, and take as long again."""


def of(*languages: str) -> Any:
    """Return the parameters of a test: the blocks in these languages."""
    return pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in languages], ids=str)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the documents has: a fine-tuned checkpoint and rows."""
    place = tmp_path_factory.mktemp("reader")
    tiny_checkpoint(place / "my-model", num_hidden_layers=1)
    write_rows(place / "train.csv", 48, seed=0)
    write_rows(place / "validation.csv", 40, seed=1)
    return place


@pytest.fixture
def here(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a copy of ``toys``."""
    shutil.copytree(toys, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(arguments: list[str]) -> None:
    """Parse a command line as far as click can without running it; raises what click raises."""
    with main.make_context("compress", list(arguments)) as context:
        verb, *rest = [*context._protected_args, *context.args]
        command = main.get_command(context, verb)
        if command is None:
            raise click.UsageError(f"no verb '{verb}'")
        command.make_context(verb, rest, parent=context)


def compiled(text: str, registry: Registry) -> None:
    """Compile a recipe that a page shows, completed where it shows a part; a list makes it a sweep.

    Files that it names are there: a compiler does not look into them.
    """
    given = yaml.safe_load(text)
    lines = [line for key, line in COMPLETION.items() if key not in given]
    if isinstance(given, list):
        lines[-1] = "steps:"
    for name in DATA.findall(text):
        Path(name).touch()
    Path("shown.yaml").write_text("\n".join([*lines, text]))
    loaded = load_recipe("shown.yaml", model="my-model")
    try:
        compile_plan(loaded, registry)
    except RecipeError as error:
        if "sweep" not in error.message:
            raise
        compile_sweep(loaded, registry, over=())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_fence_is_read_in_a_language_that_is_known(path: Path):
    found = [one for one in BLOCKS if one.page == path.name]
    assert len(found) * 2 == len(re.findall(r"^\s*```", path.read_text(), flags=re.MULTILINE)), "a fence is not read"
    assert [f"{one}: {one.language}" for one in found if one.language not in KNOWN] == []
    assert [str(one) for one in found if one.mark == "not run" and not one.said] == [], "expected a reason"


@of("yaml")
@pytest.mark.usefixtures("here")
def test_a_recipe_compiles(block: Block, registry: Registry):
    if block.mark == "not run":
        assert yaml.safe_load(block.text)
    else:
        compiled(block.text, registry)


@of("yaml")
def test_commands_inside_yaml_are_ours(block: Block):
    lines = re.findall(r"(?:run: |^\s+)(compress [^\n]*)$", block.text, flags=re.MULTILINE)
    for line in lines:
        parsed(Command(line).ours or [])


@of(*SHELLS)
def test_a_command_has_the_verbs_options_targets_and_recipes_that_are_there(block: Block):
    assert list(commands(block)), "no command"
    for command in commands(block):
        if command.ours is not None:
            parsed(command.ours)
        assert set(re.findall(r"^make ([a-z-]+)", command.line)) <= TARGETS
        if command.line.startswith("pip install"):
            named = re.findall(r"(?:compressor-onnx|-e '\.)\[([a-z,]+)\]", command.line)
            assert {extra for one in named for extra in one.split(",")} <= EXTRAS
        assert [
            name for name in re.findall(r"(?<![\w/])recipes/\w+\.yaml", command.line) if not (ROOT / name).exists()
        ] == []


@of("python")
def test_python_parses_and_what_it_imports_of_ours_is_there(block: Block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "compressor":
            module = import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@of("toml", "json")
def test_data_parses(block: Block):
    assert tomllib.loads(block.text) if block.language == "toml" else json.loads(block.text)


@pytest.mark.parametrize("page", WALKED)
@pytest.mark.usefixtures("here")
def test_a_page_can_be_walked_through(page: str, monkeypatch: pytest.MonkeyPatch):
    hurry(monkeypatch)
    names: dict[str, Any] = {}
    for block in (one for one in BLOCKS if one.page == page):
        if block.mark == "file":
            Path(block.said).write_text(block.text)
        elif block.mark == "run" and block.language == "python":
            exec(compile(block.text, str(block), "exec", dont_inherit=True), names)  # noqa: S102 - our own document
        elif block.mark == "run":
            for command in commands(block):
                walk(command, block)


def walk(command: Command, block: Block) -> None:
    """Run one command line of a page in this process."""
    assert command.ours is not None, f"{block}: only compress is run here: {command.line}"
    result = CliRunner().invoke(main, [*command.ours, *CHEAPER.get(command.ours[0], ())])
    assert result.exit_code in CODES.get(command.ours[0], {0}), f"{block}: {command.line}\n{result.output}"
    said = [line.rstrip() for line in result.output.splitlines()]
    for line in command.output:
        pattern = re.escape(line.rstrip()).replace(re.escape("..."), ".*")
        assert any(re.fullmatch(pattern, one) for one in said), f"{block}: not said: {line}\n{result.output}"


def test_every_page_is_in_the_index_and_in_its_tables_of_contents():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.stem for path in PAGES} - {"README", "index"}
    listed = [
        name for block in BLOCKS if block.language == "{toctree}" for name in block.text.split("\n\n")[-1].split()
    ]
    assert sorted(listed) == sorted(pages)
    assert {name for name in pages if f"({name}.md)" not in index} <= SIDE


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_shown_in_a_command_that_parses(verb: str):
    shown = [c.ours for one in BLOCKS if one.language in SHELLS for c in commands(one) if c.ours]
    inline = re.findall(
        r"`compress ([a-z-]+)", "\n".join(path.read_text() for path in PAGES if path.stem != "reference")
    )
    assert verb in {words[0] for words in shown if words} | set(inline)


def test_an_option_that_does_not_exist_is_found():
    block = Block("x.md", 1, "bash", "compress apply recipe.yaml --quick\n", "", "")
    with pytest.raises(click.NoSuchOption):
        test_a_command_has_the_verbs_options_targets_and_recipes_that_are_there(block)
