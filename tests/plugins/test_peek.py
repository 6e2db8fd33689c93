from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from compressor.errors import InputError
from compressor.testing import tiny_tokenizer
from compressor_plugins import peek as peeking
from compressor_plugins.peek import peek
from compressor_plugins.tables import read_rows
from compressor_plugins.tasks.text_classification import TextClassification

FILES = {
    "quotes.csv": 'text,label\n"a, ""b""\nc",1\n\nd,0\n',
    "mark.csv": "\ufefftext,label\na,1\n",
    "quotes.tsv": 'text\tlabel\n"a\t1\nb\t0\n',
    "numbers.csv": "text,label\n1,1.0\n2,0.0\n",
    "blank.csv": "\ntext,label\na,1\n \t\nb,0\n",
    "column.csv": "text\na\n  \nb\n",
    "index.csv": ",text,label\n0,a,1\n1,b,0\n",
    "short.csv": "text,label\na,1\nb\n",
    "names.csv": "text,label\na,1_0\nb,1_1\n",
    "nan.csv": "text,label\na,1\nb,nan\n",
    "digits.csv": "text,label\na,\u0661\nb,\u0660\n",
    "truth.csv": "text,label\na,True\nb,False\n",
    "stars.jsonl": '{"text": "a", "label": "1"}\n{"text": "b", "label": "5"}\n',
    "lines.jsonl": '{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n',
    "lines.json": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
    "array.json": '[{"text": "a", "label": 1},\n {"text": "b", "label": 0}]\n',
}


def written(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_text(FILES[name], encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_peek_sees_what_a_run_reads(name: str, tmp_path: Path):
    path = written(tmp_path, name)
    seen, read = peek(path), read_rows(path)
    assert seen is not None
    assert (seen.source, seen.count, seen.column_names) == (str(path), len(read), read.column_names)
    assert seen.columns == {column: read[column][:] for column in read.column_names}


def test_a_peek_at_parquet_counts_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.parquet"
    Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]}).to_parquet(path)
    monkeypatch.setattr(peeking, "FIRST", 2)
    seen = peek(path)
    assert seen is not None
    assert (seen.count, seen["text"], seen["label"]) == (3, ["a", "b"], [0, 1])
    assert seen.source == f"{path} (its first 2 rows)"


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_of_a_large_file_the_first_rows_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / name
    rows = [{"text": f"t{number}", "label": 0} for number in range(9)]
    lines = (
        [json.dumps(row) for row in rows] if path.suffix == ".jsonl" else ["text,label", *(f"t{n},0" for n in range(9))]
    )
    path.write_text("\n".join(lines))
    monkeypatch.setattr(peeking, "WHOLE", 10)
    monkeypatch.setattr(peeking, "FIRST", 2)
    seen = peek(path)
    assert seen is not None
    assert (seen["text"], seen.count) == (["t0", "t1"], None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "{\n"),
        ("a.json", '{"a":\n 1}'),
        ("a.csv", "text\n\xff"),
        ("a.csv", "text,label\n0,a,1\n"),
        ("a.csv", "text,label,label\na,0,x\n"),
    ],
)
def test_what_only_a_run_can_judge_is_left_to_it(name: str, text: str, tmp_path: Path):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert peek(tmp_path / name) is None


def test_a_file_that_may_not_be_read_is_left_to_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, "mark.csv")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert peek(path) is None


def test_classes_whose_names_are_numbers_are_names_in_a_file_with_types(tmp_path: Path):
    path, stars = written(tmp_path, "stars.jsonl"), {str(number + 1): number for number in range(5)}
    task = TextClassification(train=path, validation=path)
    assert task.glance("train", label2id=stars).problems == ()
    assert task.load("train", tiny_tokenizer(), label2id=stars)["labels"][:] == [0, 4]


@pytest.mark.parametrize("text", ["", "text,label\n"])
def test_a_file_without_rows_is_refused(text: str, tmp_path: Path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a.csv: the file (is empty|has no rows)"):
        peek(tmp_path / "a.csv")


def test_class_ids_that_the_file_itself_explains_are_left_to_a_run(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    features = Features({"text": Value("string"), "label": ClassLabel(names=["b", "a"])})
    Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features).to_parquet(path)
    task = TextClassification(train=path, validation=path)
    assert task.glance("train", label2id={"a": 0, "b": 1}).problems == ()
    assert task.load("train", tiny_tokenizer(), label2id={"a": 0, "b": 1})["labels"][:] == [1, 0]
