from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from torch import nn

from compressor.errors import InputError
from compressor.model.batches import collate
from compressor.testing import tiny_tokenizer
from compressor_plugins.tasks._entities import entities, figures, table
from compressor_plugins.tasks._tagged import aligned
from compressor_plugins.tasks._tokens import IGNORED, OUTSIDE
from compressor_plugins.tasks.token_classification import TokenClassification
from tests.tables import TAGS, write_lines

LABEL2ID = {tag: number for number, tag in enumerate(TAGS)}
ROW = {"tokens": ["the", "cat's", "dog"], "tags": ["O", "B-PER", "I-PER"]}


def task(path: Path, **options: Any) -> TokenClassification:
    return TokenClassification(**{"train": path, "validation": path, **options})


def on_rows(directory: Path, *rows: dict[str, Any], **options: Any) -> TokenClassification:
    return task(write_lines(directory / "rows.jsonl", list(rows)), **options)


def batch_of(directory: Path, *rows: dict[str, Any], **options: Any) -> tuple[TokenClassification, Any]:
    made = on_rows(directory, *rows, **{"max_length": 16, **options})
    loaded = made.load("validation", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    return made, collate(loaded, tiny_tokenizer())


# --- alignment ---


def test_the_first_sub_word_carries_the_words_tag(tmp_path: Path):
    (row,) = on_rows(tmp_path, ROW, max_length=10).load("train", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    tokens = tiny_tokenizer().convert_ids_to_tokens(row["input_ids"])
    assert tokens == ["[CLS]", "the", "cat", "[UNK]", "[UNK]", "dog", "[SEP]"]  # cat ' s
    assert row["labels"] == [IGNORED, 0, 1, IGNORED, IGNORED, 2, IGNORED, *[IGNORED] * 3]


def test_a_word_without_tokens_is_left_out_and_shifts_nothing():
    (row,) = aligned([["the", " ", "dog"]], [[3, 4, 1]], tokenizer=tiny_tokenizer(), max_length=8).to_list()
    assert [label for label in row["labels"] if label != IGNORED] == [3, 1]


def test_long_rows_are_cut_into_parts_that_keep_every_word_once(tmp_path: Path):
    words = ["the", "cat's", "small", "dog", "ate", "a", "fish's", "plot"] * 3
    tags = [TAGS[number % 5] for number in range(len(words))]
    made = on_rows(tmp_path, ROW, {"tokens": words, "tags": tags}, max_length=8)
    rows = made.load("validation", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    assert [row["example"] for row in rows] == [0] + [1] * (len(rows) - 1)
    assert max(len(row["input_ids"]) for row in rows) == 8
    carried = [label for row in rows[1:] for label in row["labels"] if label != IGNORED]
    assert carried == [LABEL2ID[tag] for tag in tags]


def test_tags_follow_the_checkpoint_by_name_and_the_data_set_by_number(tmp_path: Path):
    theirs = {"B-PER": 0, "I-PER": 1, "O": 2}
    (named,) = on_rows(tmp_path, ROW).load("train", tiny_tokenizer(), label2id=theirs).to_list()
    feature = Features(
        {"tokens": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=["O", "B-PER", "I-PER"]))}
    )
    path = tmp_path / "rows.parquet"
    Dataset.from_dict({"tokens": [ROW["tokens"]], "tags": [[0, 1, 2]]}, features=feature).to_parquet(path)
    (numbered,) = task(path).load("train", tiny_tokenizer(), label2id=theirs).to_list()
    assert [label for label in named["labels"] if label != IGNORED] == [2, 0, 1]
    assert numbered == named
    unnamed = {f"LABEL_{number}": number for number in range(3)}
    (ordered,) = task(path, labels=("I-PER", "O", "B-PER")).load("train", tiny_tokenizer(), label2id=unnamed).to_list()
    assert [label for label in ordered["labels"] if label != IGNORED] == [1, 2, 0]


def test_columns_of_text_read_as_lists_do(tmp_path: Path):
    path = tmp_path / "rows.conll"
    path.write_text("-DOCSTART- -X- O O\n\nthe DT O\ncat's NN B-PER\ndog NN I-PER\n\n\na DT O\n")
    (first, second) = task(path).load("validation", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    (same,) = on_rows(tmp_path, ROW).load("validation", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    assert first == same
    assert second["example"] == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.conll", "", "the file has no words"),
        ("rows.conll", "the O\ncat\n", "line 2: expected a word and its tag, got 'cat'"),
        ("rows.txt", b"\xff\xfe", "expected UTF-8 text, a word and its tag per line"),
        ("rows.jsonl", "", "the file is empty"),
        ("rows.jsonl", '{"words": ["a"], "tags": ["O"]}', "no column 'tokens'; columns: words, tags"),
        ("rows.jsonl", '{"tokens": ["a"], "ner_tags": ["O"]}', "no column 'tags'; did you mean 'ner_tags'"),
        ("rows.jsonl", '{"tokens": ["a", "the"], "tags": ["O"]}', "row 1: 2 words and 1 tags"),
        ("rows.csv", "tokens,tags\nthe cat,O O\n", "row 1: expected a list of words in 'tokens' and a list of tags"),
        ("rows.jsonl", '{"tokens": ["a"], "tags": ["B-PRE"]}', "label 'B-PRE': expected one of .*did you mean 'b_per'"),
        ("rows.jsonl", '{"tokens": ["a"], "tags": [5]}', "label 5: expected 0 to 4"),
    ],
)
def test_broken_rows_are_one_clear_error(tmp_path: Path, name: str, content: str | bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as caught:
        task(path).load("train", tiny_tokenizer(), label2id=LABEL2ID)
    assert str(path) in str(caught.value)


def test_tags_that_are_no_entities_name_the_option(tmp_path: Path):
    made = on_rows(tmp_path, {"tokens": ["a"], "tags": [0]})
    with pytest.raises(InputError, match=r"tag 'LABEL_0': expected entity tags .*\n  next: list the tags .* 'labels'"):
        made.load("train", tiny_tokenizer(), label2id={"LABEL_0": 0, "LABEL_1": 1})
    with pytest.raises(InputError, match=r"tag 'NOUN': expected entity tags .*\n  next: set task.entities to false"):
        made.load("train", tiny_tokenizer(), label2id={"NOUN": 0, "VERB": 1})
    plain = made.model_copy(update={"entities": False})
    assert len(plain.load("train", tiny_tokenizer(), label2id={"NOUN": 0, "VERB": 1})) == 1


# --- what is made of logits ---


def test_the_output_depends_on_words_alone_and_not_on_padding(tmp_path: Path):
    made, batch = batch_of(tmp_path, ROW, {"tokens": ["a"] * 9, "tags": ["O"] * 9})
    raw = torch.randn(2, batch["input_ids"].shape[1], 5)
    z = made.output(raw, batch)
    assert z.shape == (2, 16, 5)
    words = batch["labels"] != IGNORED
    assert torch.equal(z[words], raw[words[:, : raw.shape[1]]])
    assert bool((z[~words] == OUTSIDE).all())
    weights = made.token_weights(batch)
    assert torch.equal(weights.bool(), words[:, : raw.shape[1]])
    alone = {name: tensor[:1] for name, tensor in batch.items()}
    assert torch.equal(made.output(raw[:1, :7], {**alone, "input_ids": batch["input_ids"][:1, :7]}), z[:1])


def test_losses_are_means_over_the_words_of_a_row(tmp_path: Path):
    made, batch = batch_of(tmp_path, ROW, {"tokens": ["a"] * 5, "tags": ["O"] * 5})
    raw = torch.randn(2, batch["input_ids"].shape[1], 5)
    found = made.sample_losses(made.output(raw, batch), batch)
    for number in range(2):
        labels = batch["labels"][number, : raw.shape[1]]
        torch.testing.assert_close(found[number], nn.functional.cross_entropy(raw[number], labels))
    dense = torch.randn_like(raw)
    kl = nn.functional.kl_div(raw.log_softmax(2), dense.softmax(2), reduction="none").sum(2)
    words = batch["labels"][:, : raw.shape[1]] != IGNORED
    expected = torch.stack([kl[number][words[number]].mean() for number in range(2)])
    torch.testing.assert_close(made.divergences(made.output(raw, batch), made.output(dense, batch)), expected)


def test_curvature_approaches_the_hessian_of_the_divergence(tmp_path: Path):
    made, batch = batch_of(tmp_path, ROW, max_length=6)
    raw = torch.randn(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = {name: tensor[:, :6] for name, tensor in batch.items()}
    z = made.output(raw, batch)

    def divergence(moved: torch.Tensor) -> torch.Tensor:
        return made.divergences(made.output(moved.reshape(raw.shape), batch), z, temperature=2.0)[0]

    def scalars(moved: torch.Tensor) -> torch.Tensor:
        output = made.output(moved.reshape(raw.shape), batch)
        return made.curvature(output, temperature=2.0, draws=4000, generator=np.random.default_rng(0))[0]

    expected = torch.autograd.functional.hessian(divergence, raw.flatten())
    jacobian = torch.autograd.functional.jacobian(scalars, raw.flatten(), vectorize=True)
    torch.testing.assert_close(jacobian.T @ jacobian, expected, rtol=0, atol=1e-2)
    assert float(expected.abs().max()) > 0.05


# --- entities ---


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O B-LOC", {("PER", 1, 2), ("LOC", 4, 4)}),
        ("B-PER B-PER I-PER", {("PER", 0, 0), ("PER", 1, 2)}),
        ("I-PER I-PER O I-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),  # as conlleval: I- begins where nothing goes on
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),
        ("B-PER I-PER E-PER S-LOC O", {("PER", 0, 2), ("LOC", 3, 3)}),
        ("S-PER I-PER E-PER E-PER", {("PER", 0, 0), ("PER", 1, 2), ("PER", 3, 3)}),
        ("B-X-Y I-X-Y", {("X-Y", 0, 1)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_entities_are_read_as_conlleval_reads_them(tags: str, expected: set[Any]):
    assert entities(tags.split()) == expected


def test_figures_are_those_of_counting_by_hand():
    gold = ["O", "B-PER", "I-PER", "O", "B-LOC"]
    predicted = ["O", "B-PER", "O", "O", "B-LOC"]  # one entity whole, one cut short: 1 hit of 2 found and 2 gold
    outputs = np.stack([np.eye(5)[[LABEL2ID[tag] for tag in tags]] for tags in (predicted, gold)])
    samples = [{"labels": [LABEL2ID[tag] for tag in gold], "names": TAGS, "example": number} for number in (0, 1)]
    rows = table(outputs, samples, spans=True)
    assert rows["correct"].tolist() == [False, True]
    assert rows["predictions"].tolist() == [" ".join(predicted), " ".join(gold)]
    assert figures(rows, spans=True) == {"f1": 0.75, "precision": 0.75, "recall": 0.75, "accuracy": 0.9}
    first = {name: column[:1] for name, column in rows.items()}
    assert figures(first, spans=True) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.8}
    assert figures(first, spans=False) == {"accuracy": 0.8}


def test_an_entity_across_a_cut_is_one(tmp_path: Path):
    made = on_rows(tmp_path, {"tokens": ["a"] * 8, "tags": ["O", "B-PER", *["I-PER"] * 5, "O"]}, max_length=5)
    samples = made.load("validation", tiny_tokenizer(), label2id=LABEL2ID).to_list()
    assert len(samples) == 3
    outputs = np.eye(5)[np.maximum([sample["labels"] for sample in samples], 0)]
    rows = made.rows(outputs, outputs, samples)
    assert rows["gold"].tolist() == rows["found"].tolist() == rows["hits"].tolist() == [1]
    assert made.metrics(rows)["f1"] == 1.0


def test_no_entities_at_all_are_zero_not_missing():
    rows = {name: np.array([0]) for name in ("hits", "found", "gold")} | {
        "words": np.array([3]),
        "right": np.array([3]),
    }
    assert figures(rows, spans=True) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}
