"""What tells a full disk from other troubles."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from compressor.errors import CompressorError, InputError, PluginError, disk_full, ran_out

FULL = [
    OSError(errno.ENOSPC, "No space left on device", "x"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save on a full disk
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_known_in_whatever_library_it_shows(error: Exception):
    assert disk_full(error)
    assert ran_out(error)


@pytest.mark.parametrize("cause", FULL, ids=str)
def test_what_came_of_a_full_disk_is_one(cause: Exception):
    error = PluginError("the exporter failed")
    error.__cause__ = cause
    assert disk_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        OSError(errno.EACCES, "Permission denied"),
        InputError("a plugin's own words: No space left on device"),
        CompressorError("of something else"),
    ],
    ids=str,
)
def test_nothing_else_is_a_full_disk(error: Exception):
    assert not disk_full(error)
