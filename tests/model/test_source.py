from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from compressor.errors import CompressorError, InputError, SetupError
from compressor.model import source
from compressor.model.source import local_directory


def refused(kind: type[Exception]) -> Exception:
    """Return an error of the hub without the answer it is made of: whose class that is depends on the version."""
    return kind.__new__(kind, "refused")


@pytest.mark.parametrize(
    ("error", "kind", "said", "following"),
    [
        (refused(GatedRepoError), SetupError, "to logged-in users only", "hf auth login"),
        (refused(RepositoryNotFoundError), InputError, "nor a model of the hub", "check the name"),
        (HFValidationError("Repo id must be in the form ..."), InputError, "nor a model of the hub", "check the name"),
        (refused(RevisionNotFoundError), InputError, "has no revision 'v2'", ""),
        (OSError("[Errno -2] Name or service not known\nmore"), SetupError, "service not known", "connection"),
    ],
)
def test_what_the_hub_refuses_is_one_error_with_the_next_step(
    error: Exception, kind: type[CompressorError], said: str, following: str, monkeypatch: pytest.MonkeyPatch
):
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(source, "snapshot_download", snapshot_download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(kind) as caught:
        local_directory("owner/model", "v2")
    assert said in caught.value.message
    assert caught.value.message.startswith("owner/model: ")
    assert following in caught.value.hint


def test_offline_says_where_it_looked_and_how_to_go_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match=f"HF_HUB_OFFLINE is set, and the cache {tmp_path} does not hold it") as caught:
        local_directory("owner/model")
    assert "unset HF_HUB_OFFLINE" in caught.value.hint


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a checkpoint in ``models/mrpc``, and no hub."""
    (tmp_path / "models" / "mrpc").mkdir(parents=True)
    (tmp_path / "models" / "mrpc" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("modles/mrpc", "did you mean 'models/mrpc'"),
        ("models/mprc", "did you mean 'models/mrpc'"),
        ("models/another", "such as models/mrpc"),
        ("modles", "such as models/mrpc"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_mistyped_relative_path_is_an_input_error_though_it_might_be_a_name_of_the_hub(typed: str, said: str):
    with pytest.raises(InputError, match=f"^{typed}: no such directory, and the hub cannot give") as caught:
        local_directory(typed)
    assert said in caught.value.hint
    assert caught.value.hint.startswith("give ")


@pytest.mark.usefixtures("offline")
def test_a_mistyped_path_names_the_nearest_directory():
    with pytest.raises(InputError, match=r"^modles/mprc: no such directory; did you mean 'models/mrpc'\?") as caught:
        local_directory("./modles/mprc")
    assert "-m" in caught.value.hint


@pytest.mark.usefixtures("offline")
def test_a_name_like_nothing_here_is_one_that_the_hub_did_not_give():
    with pytest.raises(SetupError):
        local_directory("owner/model")
