"""The option ``dataset``: a directory that ``datasets`` reads, whole or streamed, and the hub that is not there."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from packaging.requirements import Requirement
from pydantic import ValidationError

from compressor.errors import InputError, SetupError
from compressor.testing import tiny_tokenizer
from compressor_plugins.tasks import _hub
from compressor_plugins.tasks._dataset import DatasetOptions
from compressor_plugins.tasks.embedding import Embedding
from compressor_plugins.tasks.text_classification import TextClassification
from compressor_plugins.tasks.token_classification import TokenClassification
from tests.tables import TAGS, tagged_rows, write_lines

STREAMING = {"streaming": True, "train_rows": 4, "validation_rows": 4}
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rows")
    for split, count in (("train", 30), ("validation", 20)):
        rows = [{"text": f"the cat {number}", "label": number % 2} for number in range(count)]
        pd.DataFrame(rows).to_csv(place / f"{split}.csv", index=False)
    return place


def task(path: Path | str, **options: Any) -> TextClassification:
    return TextClassification(dataset={"path": str(path), **options})


def test_a_directory_gives_what_its_files_give(directory: Path):
    files = TextClassification(train=directory / "train.csv", validation=directory / "validation.csv")
    for split in ("train", "validation"):
        assert task(directory).load(split, tiny_tokenizer()).to_list() == files.load(split, tiny_tokenizer()).to_list()  # type: ignore[arg-type]
    short = TextClassification(dataset=str(directory))  # type: ignore[arg-type]
    assert short == task(directory)


def test_a_stream_gives_the_first_rows_and_reads_no_others(directory: Path, monkeypatch: pytest.MonkeyPatch):
    whole = task(directory).load("train", tiny_tokenizer()).to_list()
    taken: list[int] = []
    streaming = task(directory, streaming=True, train_rows=7, validation_rows=5)
    original = _hub.load_dataset

    def counted(*given: Any, **options: Any) -> Any:
        stream = original(*given, **options)
        assert options["streaming"]
        return SimpleNamespace(features=stream.features, take=lambda count: taken.append(count) or stream.take(count))

    monkeypatch.setattr(_hub, "load_dataset", counted)
    assert streaming.load("train", tiny_tokenizer()).to_list() == whole[:7]
    assert taken == [7]
    assert len(streaming.load("validation", tiny_tokenizer())) == 5


def test_rows_can_be_limited_without_a_stream_and_an_edited_file_is_read_anew(directory: Path, tmp_path: Path):
    place = tmp_path / "rows"
    shutil.copytree(directory, place)
    limited = task(place, train_rows=3)
    assert limited.load("train", tiny_tokenizer())["labels"][:] == [0, 1, 0]
    (place / "train.csv").write_text("text,label\na,1\nb,1\n")
    assert limited.load("train", tiny_tokenizer())["labels"][:] == [1, 1]


@pytest.mark.parametrize("streaming", [{}, STREAMING], ids=["whole", "streamed"])
def test_jsonl_of_tagged_words_and_parquet_of_texts_are_read_too(tmp_path: Path, streaming: dict[str, Any]):
    words = tmp_path / "words"
    words.mkdir()
    for split in ("train", "test"):
        write_lines(words / f"{split}.jsonl", tagged_rows(4, seed=0))
    tagged = TokenClassification(dataset={"path": str(words), "validation": "test", **streaming})  # type: ignore[arg-type]
    label2id = {tag: number for number, tag in enumerate(TAGS)}
    assert {row["example"] for row in tagged.load("validation", tiny_tokenizer(), label2id=label2id)} == {0, 1, 2, 3}
    texts = tmp_path / "texts"
    texts.mkdir()
    for split in ("train", "validation"):
        pd.DataFrame({"text": [f"{word} cat" for word in "abcdefghijklm"]}).to_parquet(texts / f"{split}.parquet")
    embedding = Embedding(dataset={"path": str(texts), **(streaming | {"validation_rows": 11} if streaming else {})})  # type: ignore[arg-type]
    assert len(embedding.load("train", tiny_tokenizer())) == (4 if streaming else 13)
    assert len(embedding.load("validation", tiny_tokenizer())) == (11 if streaming else 13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": {"path": "./nowhere"}}, "no such file or directory: nowhere"),
        ({"dataset": {"path": "a/b", "streaming": True}}, "streaming needs train_rows and validation_rows"),
        ({"dataset": {"path": "a/b", "spilt": "x"}}, "Extra inputs are not permitted"),
        ({"dataset": "a/b", "train": "TRAIN"}, "from the files 'train' and 'validation', or from 'dataset'"),
        ({"dataset": "TRAIN"}, "got the file .*; files go in train and validation"),
        ({}, "from the files 'train' and 'validation', or from 'dataset'"),
    ],
)
def test_bad_options_are_found_before_anything_loads(options: dict[str, Any], message: str, directory: Path):
    file = str(directory / "train.csv")
    given = {name: file if value == "TRAIN" else value for name, value in options.items()}
    with pytest.raises(ValidationError, match=message):
        TextClassification.model_validate(given)


@pytest.mark.parametrize("streaming", [{}, STREAMING], ids=["whole", "streamed"])
def test_a_missing_split_and_a_missing_column_say_what_is_there(directory: Path, streaming: dict[str, Any]):
    with pytest.raises(InputError, match=r"(?s)test.*train.*next: check task.dataset"):
        task(directory, validation="test", **streaming).load("validation", tiny_tokenizer())
    wrong = task(directory, **streaming).model_copy(update={"text": "sentence"})
    with pytest.raises(InputError, match="no column 'sentence'; columns: text, label"):
        wrong.load("train", tiny_tokenizer())


def test_an_empty_directory_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"next: check task.dataset"):
        task(tmp_path).load("train", tiny_tokenizer())


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("streaming", [{}, STREAMING], ids=["whole", "streamed"])
def test_without_a_network_there_is_one_clear_error_with_the_way_out(streaming: dict[str, Any]):
    with pytest.raises(
        SetupError, match="owner/rows: no such directory, and the hub cannot give the data set"
    ) as caught:
        task("owner/rows", **streaming).load("train", tiny_tokenizer())
    assert "set task.dataset.path to a local directory" in caught.value.hint
    assert caught.value.exit_code == 3


def test_the_commit_is_asked_for_once_pinned_and_read(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def info(_: Any, path: str, *, revision: str | None, timeout: float) -> Any:
        del timeout
        asked.append((path, revision))
        return SimpleNamespace(sha=SHA)

    read: list[Any] = []
    monkeypatch.setattr(_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(_hub, "load_dataset", lambda *_, revision, **__: read.append(revision) or [1])
    _hub.commit.cache_clear()
    made = task("owner/pinned", revision="main")
    assert made.pinned() == {"dataset_revision": SHA}
    _hub.read(DatasetOptions(path="owner/pinned", revision="main"), "train")
    assert read == [SHA]
    assert asked == [("owner/pinned", "main")]
    _hub.commit.cache_clear()


@pytest.mark.usefixtures("no_hub")
def test_what_is_known_without_the_hub_is_the_revision_itself(directory: Path):
    _hub.commit.cache_clear()
    assert task("owner/rows", revision=SHA).pinned() == {"dataset_revision": SHA}
    assert task("owner/rows").pinned() == {}
    assert task(directory).pinned() == {}


def test_no_version_of_datasets_is_allowed_that_could_run_code_of_a_data_set():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (needed,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "datasets")
    assert not needed.specifier.contains("3.6.0")  # the last one that did
    assert needed.specifier.contains("4.0.0")


@pytest.mark.usefixtures("no_hub")
def test_a_task_that_reads_a_locked_commit_has_the_same_options(directory: Path):
    locked = {"dataset_revision": SHA, "weights_sha256": "w"}
    for made in (task("owner/rows"), Embedding(dataset="owner/rows")):  # type: ignore[arg-type]
        _hub.commit.cache_clear()
        again = made.pinned_to(locked)
        assert again.pinned() == {"dataset_revision": SHA}
        assert again.options() == made.options()
        assert made.pinned() == {}
    assert task(directory).pinned_to(locked).pinned() == {}
