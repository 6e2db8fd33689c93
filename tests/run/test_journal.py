"""The journal: what is finished stays finished, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.run.journal import STAGE_FILE, Journal, chain


@dataclass(frozen=True)
class ToyStep:
    index: int

    @property
    def slug(self) -> str:
        return f"{self.index + 1:02d}-toy"


def journal(path: Path, *, root: str = "root") -> Journal:
    steps: Any = tuple(ToyStep(index) for index in range(3))
    return Journal(path, root, steps)


def finish(book: Journal, index: int) -> None:
    book.start(book.steps[index])
    book.finish(book.steps[index], seconds=1.5, metrics={"kept": 0.6})


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


def test_a_half_written_stage_file_never_happened(tmp_path: Path):
    book = journal(tmp_path)
    (book.start(book.steps[0]) / STAGE_FILE).write_text('{"fingerprint": "')
    assert book.finished(book.steps[0]) is None


def test_what_a_run_depends_on_undoes_its_stages(tmp_path: Path):
    for index in range(2):
        finish(journal(tmp_path), index)
    other = journal(tmp_path, root="other weights")
    assert [other.finished(step) for step in other.steps[:2]] == [None, None]


def test_starting_a_stage_forgets_the_later_ones(tmp_path: Path):
    book = journal(tmp_path)
    for index in range(3):
        finish(book, index)
    book.start(book.steps[1])
    assert [book.finished(step) is not None for step in book.steps] == [True, False, False]


def test_parts_of_a_fingerprint_do_not_run_together():
    assert chain("ab", "c") != chain("a", "bc")


def test_beginning_again_keeps_the_checkpoints_of_the_step_itself_and_finishing_removes_them(tmp_path: Path):
    book = journal(tmp_path)
    for step in book.steps[:2]:
        for name in ("checkpoints", "model"):
            (book.directory(step) / name).mkdir(parents=True)
        (book.directory(step) / "masks.safetensors").touch()
    book.start(book.steps[0])
    assert [path.name for path in book.directory(book.steps[0]).iterdir()] == ["checkpoints"]
    assert not book.directory(book.steps[1]).exists()
    book.finish(book.steps[0], seconds=1.0, metrics={})
    assert [path.name for path in book.directory(book.steps[0]).iterdir()] == [STAGE_FILE]
