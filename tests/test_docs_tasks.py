"""What docs/tasks.md shows is read and run."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressor.plugin import Registry
from compressor.plugin.components import Task
from compressor.run.load import load_rows
from compressor.testing import tiny_tokenizer
from tests import lookup
from tests.run.conftest import run_recipe
from tests.test_house import ROOT
from tests.toys import toy_recipe

PAGE = (ROOT / "docs" / "tasks.md").read_text()
REGISTRY = Registry.load()
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
FILES = ("csv", "jsonl", "conll")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def block(section: str, *languages: str) -> str:
    (found,) = re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", SECTIONS[section], flags=re.DOTALL)
    return str(found)


def shown_task(section: str) -> Task:
    options: dict[str, Any] = dict(yaml.safe_load(block(section, "yaml"))["task"])
    cls: Any = REGISTRY.get("task", options.pop("name"))
    task: Task = cls.model_validate(options, context={"registry": REGISTRY})
    return task


@pytest.mark.parametrize(
    "section", [title for title, text in SECTIONS.items() if re.search(r"```(csv|jsonl|conll)", text)]
)
def test_the_files_that_are_shown_are_what_the_task_that_is_shown_reads(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    content = block(section, *FILES)
    for split in ("train", "validation"):
        for ending in FILES:
            Path(f"{split}.{ending}").write_text(content)
    task = shown_task(section)
    label2id = {tag: number for number, tag in enumerate(TAGS)} if task.head == "token-classification" else None
    rows = load_rows(task, "validation", tiny_tokenizer(), label2id=label2id)
    count = 5 if task.name == "reranking" else 2
    assert len(rows) == count
    assert all("[UNK]" not in tiny_tokenizer().decode(row["input_ids"]) for row in rows)


def test_the_data_set_that_is_shown_is_one():
    options = shown_task("A data set instead of files").options()["dataset"]
    assert options["path"] == "owner/reviews"
    assert options["streaming"]


def test_every_task_is_in_the_table_with_its_metrics():
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("| `")}
    assert {f"`{name}`" for name in REGISTRY.names("task")} <= rows.keys()


def test_the_metric_that_is_shown_is_short_and_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lookup.hurry(monkeypatch)
    code = block("A metric of your own", "python")
    body = code.partition("class ")[2].partition("@hookimpl")[0]
    assert len([line for line in body.splitlines() if line.strip()]) <= 10
    plugin = types.ModuleType("shown_metric")
    exec(compile(code, "tasks.md", "exec", dont_inherit=True), plugin.__dict__)  # noqa: S102 - our own document
    registry = Registry.load()
    for number, one in enumerate((plugin, lookup)):
        registry.register(one, f"shown-{number}")
    (verify,) = yaml.safe_load(block("A metric of your own", "yaml"))
    verify["verify"] |= {"rounds": 3, "sequence": 8, "gates": {"metric_drop": 9.0}}
    steps = [{"prune": {"method": "fisher", "target": {"macs": 0.6}}}, {"export": "lookup"}, verify]
    report = run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out", registry=registry).report
    assert report["quality"]["metric"] == "cost-weighted"
    assert {"accuracy", "macro_f1", "cost-weighted"} == report["quality"]["dense"].keys()
