from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr, spearmanr

from compressor.errors import InputError, SetupError
from compressor.model.batches import collate
from compressor.plugin import Task
from compressor.testing import tiny_batch, tiny_tokenizer
from compressor_plugins.tasks import _metrics
from compressor_plugins.tasks._embedding import hold_out, neighbor_agreement, neighbors
from compressor_plugins.tasks._labels import class_ids
from compressor_plugins.tasks._python_docs import paragraphs
from compressor_plugins.tasks.embedding import Embedding
from compressor_plugins.tasks.glue import SUBSETS, Glue
from compressor_plugins.tasks.squad import Squad
from compressor_plugins.tasks.text_classification import TextClassification

WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
}
ROWS = {"text": ["the cat", "a dog saw the big bird", "very bad film", "NA"], "label": [0, 1, 1, 0]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes columns to ``<name>`` in the format its ending names."""

    def write(name: str, **columns: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[path.suffix[1:]](pd.DataFrame(columns), path)
        return path

    return write


def classification(path: Path, **options: Any) -> TextClassification:
    return TextClassification(train=path, validation=path, **options)


# --- declarations ---


def test_declarations_leave_torch_alone():
    code = (
        "import sys, compressor_plugins.tasks.glue, compressor_plugins.tasks.text_classification, "
        "compressor_plugins.tasks.squad, compressor_plugins.tasks.embedding as e; e.Embedding(corpus='python-docs'); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("task", [Glue, TextClassification, Embedding, Squad])
def test_every_option_is_described(task: type[Task]):
    assert all(field.description for field in task.model_fields.values())


def test_options_validate_back_to_an_equal_task(tmp_path: Path, write: Callable[..., Path]):
    for task in (
        Glue(subset="mrpc", path=tmp_path),
        classification(write("rows.csv", **ROWS), labels=("no", "yes")),
        Embedding(corpus="python-docs", pooling="cls"),
        Squad(version="2.0", path=tmp_path, null_score_threshold=-1.5),
    ):
        plain = json.loads(json.dumps(task.options()))
        assert type(task).model_validate(plain) == task


# --- files ---


@pytest.mark.parametrize("kind", list(WRITERS))
def test_every_file_kind_gives_the_same_rows(kind: str, write: Callable[..., Path]):
    rows = classification(write(f"rows.{kind}", **ROWS)).load("train", tiny_tokenizer())
    assert rows["labels"][:] == [0, 1, 1, 0]
    assert [tiny_tokenizer().decode(ids) for ids in rows["input_ids"]] == [
        "[CLS] the cat [SEP]",
        "[CLS] a dog saw the big bird [SEP]",
        "[CLS] very bad film [SEP]",
        "[CLS] [UNK] [SEP]",  # the text "NA" is a text
    ]
    assert set(rows.column_names) <= {"input_ids", "attention_mask", "token_type_ids", "labels"}


def test_quotes_in_a_tsv_are_text(tmp_path: Path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"the cat\t1\na dog" saw\t0\n')
    assert classification(path).load("train", tiny_tokenizer())["labels"][:] == [1, 0]


def test_loading_leaves_no_cache_and_an_edited_file_is_read_anew(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    path = write("rows.csv", **ROWS)
    stamp = path.stat()
    assert classification(path).load("train", tiny_tokenizer())["labels"][:] == [0, 1, 1, 0]
    write("rows.csv", **{**ROWS, "label": [1, 0, 0, 1]})
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time
    assert classification(path).load("train", tiny_tokenizer())["labels"][:] == [1, 0, 0, 1]
    assert not cache.exists()


def test_loading_prints_nothing(
    write: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules["datasets.utils.tqdm"], "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    datasets.enable_progress_bars()
    try:
        classification(write("rows.csv", **ROWS)).load("train", tiny_tokenizer())
        assert not datasets.utils.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()  # as the suite has them
    assert capfd.readouterr() == ("", "")


def test_texts_are_truncated_to_max_length(write: Callable[..., Path]):
    path = write("rows.csv", text=["the cat " * 500], label=[0])
    assert len(classification(path, max_length=16).load("train", tiny_tokenizer())[0]["input_ids"]) == 16
    limit = tiny_tokenizer().model_max_length
    assert len(classification(path, max_length=10**6).load("train", tiny_tokenizer())[0]["input_ids"]) == limit


def test_a_second_column_of_texts_that_is_not_named_is_said(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    path = write("rows.csv", text=["a", "c"], text_pair=["b", "d"], label=[0, 1])
    for options, said in (({}, True), ({"text_pair": "text_pair"}, False)):
        caplog.clear()
        classification(path, **options).load("train", tiny_tokenizer())
        assert ("column 'text_pair', which is not read" in caplog.text) == said


def test_pairs_are_framed_as_two_segments(write: Callable[..., Path]):
    path = write("rows.csv", a=["the cat"], b=["a dog"], label=[1])
    row = classification(path, text="a", text_pair="b").load("train", tiny_tokenizer())[0]
    assert tiny_tokenizer().decode(row["input_ids"]) == "[CLS] the cat [SEP] a dog [SEP]"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"text,label\n", "the file has no rows"),
        ("rows.jsonl", b'{"text": "a", "label": 1}\n{"text', "cannot be read as jsonl"),
        ("rows.parquet", b"not a parquet file", "cannot be read as parquet"),
        ("rows.csv", b'text,label\n"a,1\n', "cannot be read as csv"),
        ("rows.csv", b"text,label\n\xff\xfe,1\n", "cannot be read as csv"),
        ("rows.json", b'[{"text": null, "label": 1}]', "column 'text' has no value in row 1 of 1"),
        ("rows.csv", b"text,label\n12,1\n", "column 'text': expected text, got 12"),
        ("rows.csv", b"sentence,label\na,1\n", "no column 'text'; columns: sentence, label"),
        ("rows.csv", b"text,labels\na,1\n", "no column 'label'; did you mean 'labels'"),
        ("rows.csv", b"text,label\na,1.5\n", "label 1.5: expected a class id or a class name"),
        ("rows.csv", b"text,label\na,-1\n", "label -1: expected 0 or more"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        classification(path).load("train", tiny_tokenizer())
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "rows.csw", "validation": "rows.csv"}, "no such file or directory: .*; did you mean 'rows.csv'"),
        ({"train": "notes.txt", "validation": "rows.csv"}, "expected a file ending in .parquet, .csv"),
        ({"train": ".", "validation": "rows.csv"}, "expected a file, got a directory"),
        ({"train": "rows.csv"}, "expected rows from the files 'train' and 'validation'"),
        ({"train": "rows.csv", "validation": "rows.csv", "labels": ["one"]}, "at least 2"),
    ],
)
def test_bad_options_are_found_before_anything_loads(
    options: dict[str, Any],
    message: str,
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    write("rows.csv", **ROWS)
    (tmp_path / "notes.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValidationError, match=message):
        TextClassification(**options)


# --- labels ---


def test_label_names_follow_the_checkpoint():
    ids = class_ids(["Bad", "good"], names=None, label2id={"GOOD": 0, "BAD": 1}, source="rows")
    assert ids == [1, 0]


def test_label_names_follow_the_option_where_the_checkpoint_has_none(write: Callable[..., Path]):
    path = write("rows.csv", text=["a", "b"], label=["good", "bad"])
    task = classification(path, labels=("bad", "good"))
    assert task.num_labels == 2
    rows = task.load("train", tiny_tokenizer(), label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert rows["labels"][:] == [1, 0]


def test_unknown_label_names_are_an_error_that_lists_the_known(write: Callable[..., Path]):
    task = classification(write("rows.csv", text=["a"], label=["goood"]))
    with pytest.raises(InputError, match="label 'goood': expected one of bad, good; did you mean 'good'"):
        task.load("train", tiny_tokenizer(), label2id={"bad": 0, "good": 1})
    with pytest.raises(InputError, match="the checkpoint does not name its classes"):
        task.load("train", tiny_tokenizer())


def test_label_ids_beyond_the_checkpoints_classes_are_an_error(write: Callable[..., Path]):
    task = classification(write("rows.csv", text=["a", "b"], label=[1, 2]))
    with pytest.raises(InputError, match="label 2: expected 0 to 1"):
        task.load("train", tiny_tokenizer(), label2id={"LABEL_0": 0, "LABEL_1": 1})


# --- metrics and outputs ---


def test_metrics_match_scikit_learn_and_scipy():
    generator = np.random.default_rng(0)
    for classes in (2, 3, 5):
        labels, predicted = generator.integers(0, classes, (2, 200))
        assert _metrics.accuracy(predicted, labels) == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
        expected = sklearn.metrics.f1_score(labels, predicted, average="macro")
        assert _metrics.macro_f1(predicted, labels) == pytest.approx(expected)
    labels, predicted = generator.integers(0, 2, (2, 200))
    assert _metrics.f1(predicted, labels) == pytest.approx(sklearn.metrics.f1_score(labels, predicted))
    assert _metrics.matthews(predicted, labels) == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predicted))
    values, scores = generator.normal(size=(2, 200))
    assert _metrics.pearson(values, scores) == pytest.approx(pearsonr(values, scores).statistic)
    assert _metrics.spearman(values, scores) == pytest.approx(spearmanr(values, scores).statistic)


def test_metrics_of_a_collapsed_model_are_zero_not_missing():
    labels, constant = np.array([0, 1, 1, 0]), np.zeros(4, int)
    assert _metrics.f1(constant, labels) == 0.0
    assert _metrics.f1(constant, constant) == 0.0
    for metric in (_metrics.matthews, _metrics.pearson, _metrics.spearman):
        assert metric(constant, labels) == 0.0
    gone = sklearn.metrics.f1_score(labels, constant, average="macro", zero_division=0)
    assert _metrics.macro_f1(constant, labels) == pytest.approx(gone)


@pytest.mark.parametrize("subset", list(SUBSETS))
def test_glue_reports_the_benchmarks_metrics(subset: Any):
    task = Glue(subset=subset)
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(50, task.num_labels))
    labels = generator.uniform(0, 5, 50) if subset == "stsb" else generator.integers(0, task.num_labels, 50)
    samples = [{"labels": label} for label in labels.tolist()]
    found = task.metrics(task.rows(outputs, outputs, samples))
    assert tuple(found) == SUBSETS[subset].metrics
    assert task.metric in found


def test_sample_losses_average_to_torchs_loss():
    z, batch = torch.randn(4, 3), {"labels": torch.tensor([0, 2, 1, 1])}
    losses = Glue(subset="mnli").sample_losses(z, batch)
    assert losses.shape == (4,)
    torch.testing.assert_close(losses.mean(), torch.nn.functional.cross_entropy(z, batch["labels"]))
    z, batch = torch.randn(4, 1), {"labels": torch.rand(4)}
    losses = Glue(subset="stsb").sample_losses(z, batch)
    torch.testing.assert_close(losses.mean(), torch.nn.functional.mse_loss(z[:, 0], batch["labels"]))


def test_token_weights_are_what_the_output_reads():
    batch = tiny_batch()
    hidden = torch.randn(*batch["input_ids"].shape, 8)
    for task in (Embedding(corpus="python-docs", pooling="mean"), Embedding(corpus="python-docs", pooling="cls")):
        inputs = hidden.clone().requires_grad_()
        task.output(inputs, batch).sum().backward()
        assert inputs.grad is not None
        assert torch.equal(inputs.grad.abs().sum(dim=-1) > 0, task.token_weights(batch) > 0)
    first = Glue(subset="mrpc").token_weights(batch)
    assert first.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert bool((first[:, 0] == 1).all())


# --- glue from files ---


def test_glue_reads_the_subsets_directory_or_its_parent(write: Callable[..., Path], tmp_path: Path):
    write("rte/validation.csv", sentence1=["the cat"], sentence2=["a dog"], label=[1])
    for path in (tmp_path, tmp_path / "rte"):
        rows = Glue(subset="rte", path=path).load("validation", tiny_tokenizer())
        assert tiny_tokenizer().decode(rows[0]["input_ids"]) == "[CLS] the cat [SEP] a dog [SEP]"


def test_glue_follows_a_checkpoint_that_orders_the_classes_otherwise(write: Callable[..., Path], tmp_path: Path):
    write("mnli/validation_matched.csv", premise=["a"] * 3, hypothesis=["b"] * 3, label=[0, 1, 2])
    task = Glue(subset="mnli", path=tmp_path)
    theirs = {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}
    assert task.load("validation", tiny_tokenizer(), label2id=theirs)["labels"][:] == [2, 1, 0]
    unnamed = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert task.load("validation", tiny_tokenizer(), label2id=unnamed)["labels"][:] == [0, 1, 2]


def test_a_missing_split_names_what_is_there_and_the_option(write: Callable[..., Path], tmp_path: Path):
    write("qqp/train_slice.csv", question1=["a"], question2=["b"], label=[0])
    task = Glue(subset="qqp", path=tmp_path)
    with pytest.raises(InputError) as caught:
        task.load("train", tiny_tokenizer())
    assert f"{tmp_path / 'qqp'}: no file of the split 'train'" in str(caught.value)
    assert "found train_slice.csv" in str(caught.value)
    assert "task.train_split" in str(caught.value)
    rows = Glue(subset="qqp", path=tmp_path, train_split="train_slice").load("train", tiny_tokenizer())
    assert len(rows) == 1


def test_a_missing_subset_names_the_folders_that_are_there(write: Callable[..., Path], tmp_path: Path):
    write("mrpc/train.csv", text=["a"])
    with pytest.raises(InputError, match=r"found mrpc\n  next: point task.path at a directory that has a folder 'rte'"):
        Glue(subset="rte", path=tmp_path).load("train", tiny_tokenizer())


def test_hidden_test_labels_are_refused(write: Callable[..., Path], tmp_path: Path):
    write("sst2/test.csv", sentence=["a"], label=[-1])
    with pytest.raises(InputError, match="label -1: expected 0 to 1; -1 marks labels that are not published"):
        Glue(subset="sst2", path=tmp_path, validation_split="test").load("validation", tiny_tokenizer())
    write("stsb/test.csv", sentence1=["a"], sentence2=["b"], label=[-1.0])
    with pytest.raises(InputError, match=r"label -1.0: expected a number from 0 to 5"):
        Glue(subset="stsb", path=tmp_path, validation_split="test").load("validation", tiny_tokenizer())


def test_a_glue_path_that_is_not_there_is_found_before_anything_loads(tmp_path: Path):
    (tmp_path / "glue").mkdir()
    with pytest.raises(ValidationError, match=r"no such file or directory: .*; did you mean 'glue'"):
        Glue(subset="mrpc", path=tmp_path / "glu")


@pytest.mark.usefixtures("no_hub")
def test_glue_without_hub_or_path_names_the_way_out():
    with pytest.raises(SetupError, match=r"cannot be read from the hub's nyu-mll/glue") as caught:
        Glue(subset="mrpc").load("train", tiny_tokenizer())
    assert "task.path" in caught.value.hint
    assert caught.value.exit_code == 3


# --- embedding ---


def test_python_docs_are_thousands_of_distinct_english_paragraphs():
    texts = paragraphs()
    assert len(texts) > 2000
    assert len(set(texts)) == len(texts)
    assert all(8 <= len(text.split()) < 120 and "\n" not in text and "``" not in text for text in texts)


def test_python_docs_are_the_same_in_every_process_and_import_no_module_of_the_library():
    code = (
        "import sys; from compressor_plugins.tasks._python_docs import paragraphs; before = set(sys.modules); "
        "texts = paragraphs(); print(sorted(set(sys.modules) - before)); print(repr(texts))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, texts = found.stdout.splitlines()
    assert "antigravity" not in imported
    assert len(imported.split()) < 5
    assert texts == repr(paragraphs())


def test_a_fifth_is_held_out_whatever_the_order():
    texts = [f"text {number}" for number in range(103)]
    held, rest = hold_out(texts, held=True), hold_out(texts, held=False)
    assert len(held) == 20
    assert sorted(held + rest) == sorted(texts)
    assert set(hold_out([*reversed(texts), texts[0]], held=True)) == set(held)


def test_embedding_reads_lines_of_text_and_columns(write: Callable[..., Path], tmp_path: Path):
    lines = tmp_path / "texts.txt"
    lines.write_text("the cat\n\n a dog saw \n")
    table = write("texts.csv", title=["the cat", "a dog saw"])
    expected = ["[CLS] the cat [SEP]", "[CLS] a dog saw [SEP]"]
    for task in (Embedding(train=lines, validation=lines), Embedding(train=table, validation=table, text="title")):
        rows = task.load("train", tiny_tokenizer())
        assert [tiny_tokenizer().decode(ids) for ids in rows["input_ids"]] == expected
        assert "labels" not in rows.column_names


def test_too_few_held_out_texts_are_an_error(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"text {number}" for number in range(50)))
    with pytest.raises(InputError, match="10 held-out texts; neighbor_agreement needs more than 10"):
        Embedding(train=path).load("validation", tiny_tokenizer())


@pytest.mark.parametrize("options", [{}, {"corpus": "python-docs", "train": __file__}])
def test_embedding_needs_exactly_one_source(options: dict[str, str], tmp_path: Path):
    if "train" in options:
        options = {**options, "train": str(tmp_path / "texts.txt")}
        (tmp_path / "texts.txt").write_text("a")
    with pytest.raises(ValidationError, match="exactly one of 'train'"):
        Embedding(**options)


def test_mean_pooling_ignores_padding():
    task = Embedding(corpus="python-docs", normalize=False)
    batch = tiny_batch(lengths=(3, 6))
    hidden = torch.randn(2, 6, 8)
    found = task.output(hidden, batch)
    torch.testing.assert_close(found[0], hidden[0, :3].mean(dim=0))
    torch.testing.assert_close(found[1], hidden[1].mean(dim=0))
    assert torch.equal(
        Embedding(corpus="python-docs", pooling="cls", normalize=False).output(hidden, batch), hidden[:, 0]
    )


def test_neighbors_match_a_full_sort(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("compressor_plugins.tasks._embedding.CHUNK", 7)
    vectors = np.random.default_rng(0).normal(size=(50, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = cdist(vectors, vectors)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(neighbors(vectors, 10), distances.argsort(axis=1)[:, :10])


def test_neighbor_agreement_is_one_for_itself_and_chance_for_noise():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(200, 16))
    assert neighbor_agreement(vectors, 3 * vectors, 10).tolist() == [1.0] * 200
    noise = neighbor_agreement(vectors, generator.normal(size=(200, 16)), 10)
    assert noise.mean() == pytest.approx(10 / 199, abs=0.02)


def test_embedding_metrics_match_numpy():
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(60, 8))
    outputs = dense + 0.3 * generator.normal(size=dense.shape)
    task = Embedding(corpus="python-docs")
    cosines = 1 - np.diag(cdist(outputs, dense, "cosine"))
    found = task.metrics(task.rows(outputs, dense, [{}] * len(outputs)))
    assert found["cosine"] == pytest.approx(cosines.mean())
    assert found["cosine_p05"] == pytest.approx(np.percentile(cosines, 5))
    assert task.metric == "cosine"


# --- real data and weights ---

SPLITS = [
    (subset, split)
    for subset in SUBSETS
    for split in ("train", "validation")
    if (subset, split) not in {("qnli", "train"), ("mnli", "train"), ("qqp", "validation")}  # not at hand
]


@pytest.mark.real
@pytest.mark.parametrize(("subset", "split"), SPLITS)
def test_real_glue_loads(subset: Any, split: Any, shared: Path):
    task = Glue(subset=subset, path=shared / "data" / "glue", train_split="train_slice" if subset == "qqp" else "train")
    rows = task.load(split, tiny_tokenizer())
    sizes = {"cola": 1043, "mnli": 9815, "mrpc": 408, "qnli": 5463, "rte": 277, "sst2": 872, "stsb": 1500, "wnli": 71}
    assert len(rows) == (sizes[subset] if split == "validation" else {"qqp": 23496}.get(subset, len(rows)))
    assert len(rows) > 70
    labels = set(rows["labels"][:])
    assert max(labels) == 5.0 if subset == "stsb" else labels == set(range(task.num_labels))


@pytest.mark.real
@pytest.mark.parametrize(("subset", "accuracy"), [("mrpc", 0.794), ("sst2", 0.877)])
def test_real_dense_accuracy_is_the_published_one(subset: Any, accuracy: float, shared: Path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from compressor.verify.evaluate import compare, torch_outputs
    from compressor.verify.statistics import Resampling

    checkpoint = shared / "models" / f"all-MiniLM-L6-v2-{subset}"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    task = Glue(subset=subset, path=shared / "data" / "glue")
    rows = task.load("validation", tokenizer, label2id=model.config.label2id).to_list()
    outputs = torch_outputs(
        model, rows, task_output=task.output, collate=partial(collate, tokenizer=tokenizer), batch_size=32
    )
    quality = compare(task, outputs, outputs, rows, Resampling(resamples=20))
    assert quality.dense["accuracy"] == pytest.approx(accuracy, abs=0.0006)
    if subset == "mrpc":
        assert quality.rows == 408
        assert quality.dense["f1"] == pytest.approx(0.855, abs=0.0006)
