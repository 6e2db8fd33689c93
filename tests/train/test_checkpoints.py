from __future__ import annotations

from pathlib import Path

import torch

from compressor.train import checkpoints


def make(directory: Path, step: int, *, whole: bool = True, fingerprint: str = "f") -> Path:
    path = directory / f"checkpoint-{step}"
    path.mkdir(parents=True)
    checkpoints.save_tensors({"x": torch.arange(8.0)}, path / "weights.safetensors")
    if whole:
        checkpoints.complete(path, fingerprint=fingerprint)
    return path


def test_the_newest_complete_checkpoint_is_found_by_its_step_not_its_name(tmp_path: Path):
    make(tmp_path, 9)
    newest = make(tmp_path, 100)
    make(tmp_path, 200, whole=False)
    make(tmp_path, 300, fingerprint="another training")
    assert checkpoints.newest(tmp_path, fingerprint="f") == newest


def test_a_file_cut_short_makes_a_checkpoint_incomplete(tmp_path: Path):
    path = make(tmp_path, 1) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoints.newest(tmp_path, fingerprint="f") is None


def test_a_marker_that_is_no_marker_counts_as_none(tmp_path: Path):
    for number, text in enumerate(("", "{", "[]", '{"files": 3}')):
        (make(tmp_path, number) / checkpoints.MARKER).write_text(text)
    assert checkpoints.newest(tmp_path, fingerprint="f") is None


def test_what_cannot_be_used_is_removed_and_two_stay(tmp_path: Path):
    for step in (1, 2, 3):
        make(tmp_path, step)
    make(tmp_path, 4, whole=False)
    checkpoints.remove_unusable(tmp_path, fingerprint="f")
    checkpoints.remove_old(tmp_path)
    assert [path.name for path in checkpoints.numbered(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


def test_no_directory_means_no_checkpoint(tmp_path: Path):
    assert checkpoints.newest(tmp_path / "never made", fingerprint="f") is None
