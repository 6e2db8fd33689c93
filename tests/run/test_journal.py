"""The journal: what is finished stays finished, and nothing else does."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compressor.run.journal import DRAFT, STAGE_FILE, Journal


@dataclass(frozen=True)
class ToyStep:
    index: int

    @property
    def slug(self) -> str:
        return f"{self.index + 1:02d}-toy"


def journal(path: Path, fingerprints: str = "abc") -> Journal:
    steps: Any = tuple(ToyStep(index) for index in range(3))
    path.mkdir(exist_ok=True)
    return Journal(path, steps, tuple(fingerprints))


def finish(book: Journal, index: int) -> None:
    (book.start(book.steps[index]) / "model.onnx").write_text(f"made in {book.run_dir.name}")
    book.finish(book.steps[index], seconds=1.5, metrics={"kept": 0.6})


def begun(path: Path, count: int, fingerprints: str = "abc") -> Journal:
    book = journal(path, fingerprints)
    for index in range(count):
        finish(book, index)
    return book


def made_in(book: Journal) -> list[str]:
    return [(book.directory(step) / "model.onnx").read_text().split()[-1] for step in book.leading()]


def test_a_finished_stage_is_found_again(tmp_path: Path):
    finish(journal(tmp_path), 0)
    again = journal(tmp_path)
    stage = again.finished(again.steps[0])
    assert stage is not None
    assert (stage["seconds"], stage["metrics"]) == (1.5, {"kept": 0.6})


def test_a_stage_without_its_last_file_never_happened(tmp_path: Path):
    book = journal(tmp_path)
    (book.start(book.steps[0]) / "model.onnx").write_text("half")
    assert book.finished(book.steps[0]) is None


@pytest.mark.parametrize("text", ['{"fingerprint": "', "", "\0\0\0"])
def test_a_half_written_stage_file_never_happened(text: str, tmp_path: Path):
    book = journal(tmp_path)
    (book.start(book.steps[0]) / STAGE_FILE).write_text(text)
    assert book.finished(book.steps[0]) is None


def test_other_fingerprints_undo_their_stages_and_no_others(tmp_path: Path):
    begun(tmp_path, 2)
    other = journal(tmp_path, "axc")
    assert [other.finished(step) is not None for step in other.steps] == [True, False, False]


def test_starting_a_stage_forgets_the_later_ones(tmp_path: Path):
    book = begun(tmp_path, 3)
    book.start(book.steps[1])
    assert [book.finished(step) is not None for step in book.steps] == [True, False, False]


def test_what_a_disk_lost_is_noticed(tmp_path: Path):
    book = begun(tmp_path, 2)
    assert [book.damaged(step) for step in book.steps] == [[], [], []]
    (book.directory(book.steps[0]) / "model.onnx").write_text("made in xxxx")
    (book.directory(book.steps[1]) / "model.onnx").unlink()
    assert [book.damaged(step) for step in book.steps] == [["model.onnx"], ["model.onnx"], []]


def test_beginning_again_keeps_the_checkpoints_of_the_step_itself_and_finishing_removes_them(tmp_path: Path):
    book = journal(tmp_path)
    for step in book.steps[:2]:
        for name in ("checkpoints", "model"):
            (book.directory(step) / name).mkdir(parents=True)
        (book.directory(step) / "masks.safetensors").touch()
    book.start(book.steps[0])
    assert [path.name for path in book.directory(book.steps[0]).iterdir()] == ["checkpoints"]
    assert not book.directory(book.steps[1]).exists()
    (book.directory(book.steps[0]) / "checkpoints" / "weights").touch()
    book.finish(book.steps[0], seconds=1.0, metrics={})
    assert [path.name for path in book.directory(book.steps[0]).iterdir()] == [STAGE_FILE]
    assert book.damaged(book.steps[0]) == []


def test_leading_stages_of_another_run_are_taken_over_and_stay_there(tmp_path: Path):
    other = begun(tmp_path / "other", 3)
    book = journal(tmp_path / "new", "abx")
    assert book.take_over([tmp_path / "nowhere", other.run_dir]) == other.run_dir
    assert made_in(book) == ["other", "other"]
    assert [path.name for path in (book.run_dir / "stages").iterdir()] == ["01-toy", "02-toy"]
    finish(book, 2)
    assert made_in(other) == ["other"] * 3
    assert made_in(book) == ["other", "other", "new"]


@pytest.mark.parametrize("count", [0, 1])
def test_stages_are_taken_from_one_run_the_one_that_came_furthest(count: int, tmp_path: Path):
    others = [begun(tmp_path / "one", 1), begun(tmp_path / "two", 2), begun(tmp_path / "three", 3, "xbc")]
    book = begun(tmp_path / "new", count)
    assert book.take_over(other.run_dir for other in others) == tmp_path / "two"
    assert made_in(book) == ["two", "two"]


def test_nothing_is_taken_over_where_this_run_came_as_far(tmp_path: Path):
    other = begun(tmp_path / "other", 2)
    book = begun(tmp_path / "new", 2)
    (book.run_dir / DRAFT / "01-toy").mkdir(parents=True)
    assert book.take_over([other.run_dir]) is None
    assert made_in(book) == ["new", "new"]
    assert [path.name for path in book.run_dir.iterdir()] == ["stages"]


def test_a_training_goes_on_from_the_checkpoints_of_another_run(tmp_path: Path):
    other = begun(tmp_path / "other", 1)
    weights = other.directory(other.steps[1]) / "checkpoints" / "checkpoint-2" / "weights"
    weights.parent.mkdir(parents=True)
    weights.write_text("of two steps")
    (other.run_dir / "latency").mkdir()
    (other.run_dir / "latency" / "table.json").touch()
    book = begun(tmp_path / "new", 1)
    assert book.take_over([other.run_dir]) == other.run_dir
    taken = book.start(book.steps[1]) / "checkpoints" / "checkpoint-2" / "weights"
    taken.write_text("of three steps")
    assert weights.read_text() == "of two steps"
    assert (book.run_dir / "latency" / "table.json").is_file()


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    other = begun(tmp_path / "other", 2)
    monkeypatch.setattr(os, "link", refuse)
    book = journal(tmp_path / "new")
    book.take_over([other.run_dir])
    assert made_in(book) == ["other", "other"]
