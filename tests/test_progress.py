from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from compressor import progress
from compressor.progress import Bar, progress_line, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is announced, at every item."""
    said: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress.announced, "info", lambda message, *given: said.append(message % given))
    return said


def test_without_a_terminal_lines_say_how_far_it_is_and_nothing_is_drawn(
    lines: list[str], capsys: pytest.CaptureFixture[str]
):
    assert list(track("abc", "read")) == ["a", "b", "c"]
    assert [line.partition(", about")[0] for line in lines] == ["read: 1 of 3", "read: 2 of 3"]
    assert capsys.readouterr() == ("", "")


def test_lines_come_at_most_as_often_as_said(lines: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 3600.0)
    assert len(list(track(range(50), "read"))) == 50
    assert lines == []


def test_on_a_terminal_a_bar_with_the_time_left_goes_to_stderr_and_is_taken_away(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert list(track(iter("ab"), "read [x]", total=2)) == ["a", "b"]
    assert "read [x]" in screen.getvalue()
    assert "2/2" in screen.getvalue()
    assert "left" in screen.getvalue()
    assert lines == []
    assert capsys.readouterr().out == ""


def test_of_several_processes_the_first_one_shows_it(lines: list[str], monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert list(track("ab", "read")) == ["a", "b"]
    assert lines == []


def test_the_bar_goes_when_what_it_shows_breaks(monkeypatch: pytest.MonkeyPatch):
    closed = []
    monkeypatch.setattr(Bar, "close", lambda _: closed.append(True))

    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(track(broken(), "read"))
    assert closed == [True]


@pytest.mark.parametrize(
    ("done", "total", "said"),
    [(30, 90, "train: 30 of 90, about 0:02:00 left"), (30, None, "train: 30 done")],
)
def test_what_is_left_follows_from_the_pace(done: int, total: int | None, said: str):
    assert progress_line("train", done, total, 2.0) == said


def test_a_resumed_training_counts_its_own_steps_only(lines: list[str], monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    Bar("train", total=120, done=100).at(110)
    assert lines[-1] == "train: 110 of 120, about 0:00:10 left"
