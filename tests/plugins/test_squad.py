from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from compressor.errors import InputError, SetupError
from compressor.model.batches import collate
from compressor.run.data import draw_examples
from compressor.testing import tiny_model, tiny_tokenizer
from compressor.verify.evaluate import compare, torch_outputs
from compressor.verify.statistics import Resampling
from compressor_plugins.tasks import _spans
from compressor_plugins.tasks._answers import Search, answer, best_span, score, table
from compressor_plugins.tasks._squad import label
from compressor_plugins.tasks.squad import Squad
from tests.toys import write_questions

CONTEXT = "the big red cat saw a small dog . the fast bird ate fish and the slow dog likes the film ."
ONE = Search(n_best=20, longest=30, null_threshold=None)
NULL = Search(n_best=20, longest=30, null_threshold=0.0)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes (question, context, answer texts, starts) to ``<split>.json``."""

    def write(*rows: tuple[str, str, list[str], list[int]], split: str = "validation") -> Path:
        plain = [
            {"question": asked, "context": context, "answers": {"text": texts, "answer_start": starts}}
            for asked, context, texts, starts in rows
        ]
        (tmp_path / f"{split}.json").write_text(json.dumps(plain))
        return tmp_path

    return write


def gold(text: str, context: str = CONTEXT) -> tuple[str, str, list[str], list[int]]:
    return ("what was it", context, [text], [context.index(text)])


def load(path: Path, split: Any = "validation", **options: Any) -> list[dict[str, Any]]:
    return Squad(path=path, **options).load(split, tiny_tokenizer()).to_list()


# --- windows ---


def test_every_window_of_a_long_context_is_labelled_with_the_gold_tokens_or_not_at_all(write: Callable[..., Path]):
    path = write(gold("small dog"), gold("the fast bird ate fish"), gold("film"), gold("the big"))
    rows = load(path, max_length=16, stride=5)
    assert len(rows) > 8
    held = [0] * 4
    for row in rows:
        first, last = row["window"]
        assert len(row["input_ids"]) <= 16
        assert len(row["starts"]) == len(row["ends"]) == last - first + 1
        shown = CONTEXT[row["starts"][0] : row["ends"][-1]]
        (text,) = row["answers"]
        if row["labels"] == [0, 0]:
            assert text not in shown
            continue
        start, end = (position - first for position in row["labels"])
        assert CONTEXT[row["starts"][start] : row["ends"][end]] == text
        held[row["example"]] += 1
    assert min(held) >= 1
    assert max(held) > 1  # in the overlap


def test_windows_overlap_by_the_stride_and_cover_the_context(write: Callable[..., Path]):
    rows = load(write(gold("film")), max_length=16, stride=5)
    for before, after in pairwise(rows):
        assert before["starts"][-5:] == after["starts"][:5]
    seen = {start for row in rows for start in row["starts"]}
    assert len(seen) == len(CONTEXT.split())


def test_only_scored_rows_carry_the_text(write: Callable[..., Path]):
    columns = {"input_ids", "attention_mask", "labels", "window", "example"}
    write(gold("film"), split="train")
    path = write(gold("film"))
    segments = {"token_type_ids"}  # as the tokenizer has them, or not
    assert set(load(path, "train")[0]) - segments == columns
    assert set(load(path)[0]) - segments == columns | {"context", "answers", "starts", "ends"}


@pytest.mark.parametrize(
    ("span", "expected"),
    [((4, 7), [6, 6]), ((4, 11), [6, 7]), ((5, 6), [6, 6]), ((0, 11), [5, 7]), ((0, 12), [0, 0]), ((), [0, 0])],
)
def test_labels_are_the_tokens_that_overlap_the_answer(span: tuple[int, ...], expected: list[int]):
    assert label(span, 5, starts=[0, 4, 8], ends=[3, 7, 11]) == expected


def test_an_answer_that_begins_before_the_window_is_not_in_it():
    assert label((3, 7), 5, starts=[4, 8], ends=[7, 11]) == [0, 0]


def test_spaces_around_a_question_and_an_answer_do_not_count(write: Callable[..., Path]):
    asked, context, _, _ = gold("film")
    rows = load(write(("  \n " * 20 + asked, context, [" film "], [context.index(" film ")])))
    assert tiny_tokenizer().decode(rows[0]["input_ids"]).startswith("[CLS] [UNK] was")
    start, end = (position - rows[0]["window"][0] for position in rows[0]["labels"])
    assert context[rows[0]["starts"][start] : rows[0]["ends"][end]] == "film"


def test_a_thousand_unanswerable_rows_before_the_first_answer_load(write: Callable[..., Path]):
    path = write(*[("was it", "the cat", [], [])] * 1100, ("was it", "the cat", ["cat"], [4]))
    rows = load(path, version="2.0")
    assert [row["answers"] for row in rows[-2:]] == [[], ["cat"]]
    assert rows[0]["labels"] == [0, 0]


BROKEN: dict[str, tuple[Any, str]] = {
    "no column": (
        [{"question": "a", "context": "b"}],
        "no column 'answers'.*columns: question, context\n.*the columns that the hub's",
    ),
    "text for answers": ([{"question": "a", "context": "b", "answers": "b"}], "row 1: expected answers {text:"),
    "no starts": ([{"question": "a", "context": "b", "answers": {"text": ["b"]}}], "row 1: expected answers {text:"),
    "lengths": (
        [{"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": [0, 1]}}],
        "row 1: expected answers {text:",
    ),
    "no answer": (
        [{"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}}],
        r"row 1: the question has no answer\n  next: set task.version to 2.0",
    ),
    "bytes": (
        [{"question": "a", "context": "é cat", "answers": {"text": ["cat"], "answer_start": [3]}}],
        r"1 answers are not where answer_start says: row 1: 'cat' is not at character 3",
    ),
    "no tokens": (
        [{"question": "a", "context": "  ", "answers": {"text": [" "], "answer_start": [0]}}],
        "row 1: the context has no tokens",
    ),
    "long question": (
        [{"question": "cat " * 30, "context": "b", "answers": {"text": ["b"], "answer_start": [0]}}],
        r"row 1: a question of 33 tokens, .* expected less than 24: max_length less stride",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rows_that_are_not_as_squad_has_them_are_refused_with_their_number(name: str, tmp_path: Path):
    rows, said = BROKEN[name]
    (tmp_path / "validation.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=f"(?s){said}"):
        load(tmp_path, max_length=32, stride=8)


def test_the_longest_question_that_is_accepted_leaves_more_than_the_stride(write: Callable[..., Path]):
    path = write(("cat " * 20, CONTEXT, ["film"], [CONTEXT.index("film")]))
    rows = load(path, max_length=32, stride=8)  # 20 + 3 < 32 - 8
    assert all(len(row["starts"]) <= 9 for row in rows)
    assert len(rows) == len(CONTEXT.split()) - 8
    with pytest.raises(InputError, match="expected less than 23"):
        load(path, max_length=32, stride=9)


def test_a_tokenizer_that_pads_on_the_left_is_refused(write: Callable[..., Path]):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    with pytest.raises(InputError, match=r"pads on the right; got .*padding_side left"):
        Squad(path=write(gold("film"))).load("validation", tokenizer)


def test_a_missing_split_names_the_files(write: Callable[..., Path]):
    path = write(gold("film"), split="dev")
    with pytest.raises(
        InputError, match=r"(?s)no file of the split 'train' of SQuAD 1.1; .*found dev.json.*train_split"
    ):
        load(path, "train")
    assert len(load(path, validation_split="dev")) == 1


@pytest.mark.usefixtures("no_hub")
def test_squad_without_hub_or_path_names_the_way_out():
    with pytest.raises(SetupError, match=r"SQuAD 2.0 cannot be read from the hub's rajpurkar/squad_v2") as caught:
        Squad(version="2.0").load("train", tiny_tokenizer())
    assert "a directory with train.<parquet|" in caught.value.hint


def test_an_unquoted_version_is_understood():
    assert Squad.model_validate({"version": 2.0}).version == "2.0"
    with pytest.raises(ValidationError, match=r"'1\.1' or '2\.0'"):
        Squad.model_validate({"version": 1.2})


# --- z: losses, divergences, curvature ---


def z_of(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, dict[str, Tensor]]:
    """Return z (3, 2, 20) of raw logits of 9 positions, and the batch."""
    raw = 2 * torch.randn(3, 9, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    batch = {"window": torch.tensor([[3, 7], [4, 4], [2, 8]]), "labels": torch.tensor([[3, 5], [0, 0], [8, 8]])}
    return Squad(max_length=20).output(raw, batch), batch


def test_z_keeps_the_first_position_and_the_window_and_nothing_else():
    raw = torch.randn(3, 9, 2)
    _, batch = z_of()
    z = Squad(max_length=20).output(raw, batch)
    assert z.shape == (3, 2, 20)
    for row, (first, last) in enumerate(batch["window"].tolist()):
        inside = [0, *range(first, last + 1)]
        assert torch.equal(z[row][:, inside], raw[row, inside].T)
        outside = [position for position in range(20) if position not in inside]
        assert bool((z[row][:, outside] == _spans.OUTSIDE).all())


def test_token_weights_are_the_positions_that_z_reads():
    _, batch = z_of()
    raw = torch.randn(3, 9, 2, requires_grad=True)
    batch["attention_mask"] = torch.ones(3, 9, dtype=torch.int64)
    Squad(max_length=20).output(raw, batch).sum().backward()
    assert raw.grad is not None
    assert torch.equal(raw.grad.abs().sum(dim=2) > 0, Squad().token_weights(batch) > 0)


def test_losses_are_the_mean_of_the_starts_and_the_ends():
    z, batch = z_of()
    expected = [
        (functional.cross_entropy(z[row, 0], start) + functional.cross_entropy(z[row, 1], end)) / 2
        for row, (start, end) in enumerate(batch["labels"])
    ]
    torch.testing.assert_close(Squad().sample_losses(z, batch), torch.stack(expected))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergences_are_the_mean_kl_over_positions_that_can_be_an_answer(temperature: float):
    (dense, batch), (z, _) = z_of(0), z_of(1)
    found = Squad().divergences(z, dense, temperature=temperature)
    for row, (first, last) in enumerate(batch["window"].tolist()):
        inside = [0, *range(first, last + 1)]
        p, q = (torch.softmax(one[row][:, inside] / temperature, dim=1) for one in (dense, z))
        expected = temperature**2 * (p * (p / q).log()).sum(dim=1).mean()
        torch.testing.assert_close(found[row], expected)
    assert Squad().divergences(dense, dense).tolist() == [0.0, 0.0, 0.0]


def test_divergences_and_their_gradients_are_finite_in_single_precision():
    (dense, _), (z, _) = (z_of(seed, dtype=torch.float32) for seed in (0, 1))
    z = (50 * z).clamp_min(_spans.OUTSIDE).requires_grad_()
    Squad().divergences(z, 50 * dense).sum().backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_curvature_is_in_expectation_the_hessian_of_the_divergence(temperature: float):
    task = Squad()
    z, _ = z_of()
    hessian = torch.autograd.functional.hessian(
        lambda moved: task.divergences(moved.unsqueeze(0), z[:1], temperature=temperature).sum(), z[0]
    )
    draws = 20000
    moving = z[:1].clone().requires_grad_()
    generator = np.random.default_rng(0)
    scalars = task.curvature(moving, temperature=temperature, draws=draws, generator=generator)
    assert scalars.shape == (1, 2 * draws)
    total = torch.zeros(40, 40, dtype=torch.float64)
    kinds, counts = torch.unique(scalars.detach()[0], return_counts=True)  # equal scalars have equal gradients
    for kind, count in zip(kinds, counts, strict=True):
        index = int((scalars[0] == kind).nonzero()[0])
        (gradient,) = torch.autograd.grad(scalars[0, index], moving, retain_graph=True)
        total += count * torch.outer(gradient.flatten(), gradient.flatten())
    expected = hessian.reshape(40, 40)
    assert float((total - expected).norm() / expected.norm()) < 0.03
    assert float((total - 2 * expected).norm() / expected.norm()) > 0.5  # the test can tell a factor


def test_curvature_of_a_row_does_not_depend_on_its_batch():
    z, _ = z_of()
    whole = Squad().curvature(z, draws=4, generator=np.random.default_rng(0))
    generator = np.random.default_rng(0)
    parts = [Squad().curvature(z[rows], draws=4, generator=generator) for rows in ([0, 1], [2])]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert float(whole.abs().max()) < 100  # no position outside was drawn


# --- answers ---


def row(text: str, *, first: int = 3, example: int = 0, answers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the row of one window whose tokens are the words of a text."""
    starts = [0, *(place + 1 for place, letter in enumerate(text) if letter == " ")]
    ends = [start + len(word) for start, word in zip(starts, text.split(), strict=True)]
    window = [first, first + len(starts) - 1]
    return {
        "window": window,
        "starts": starts,
        "ends": ends,
        "context": text,
        "answers": list(answers),
        "example": example,
    }


def logits(length: int = 12, *, null: float = -9.0, **positions: tuple[float, float]) -> np.ndarray:
    """Return z (2, length): -5 but for the named positions (``p4``), start and end logit each."""
    z = np.full((2, length), -5.0)
    z[:, 0] = null / 2
    for name, values in positions.items():
        z[:, int(name[1:])] = values
    return z


def test_the_best_pair_of_start_and_end_is_the_answer():
    z = logits(p4=(3.0, 0.0), p6=(0.0, 2.0), p3=(0.0, 4.0))  # the end of p3 is before the start of p4
    assert answer([(z, row("a red cat saw fish"))], ONE) == "red cat saw"


def test_an_answer_is_no_longer_than_allowed():
    z = logits(p3=(3.0, -5.0), p5=(2.5, 1.0), p7=(0.0, 3.0))
    assert answer([(z, row("a red cat saw fish"))], ONE) == "a red cat saw fish"
    assert answer([(z, row("a red cat saw fish"))], Search(20, 3, None)) == "cat saw fish"


def test_positions_outside_the_window_are_no_answer():
    z = logits(p1=(9.0, 9.0), p9=(9.0, 9.0), p5=(1.0, 1.0))
    assert answer([(z, row("a red cat saw fish"))], ONE) == "cat"


def test_the_best_of_all_windows_wins():
    parts = [(logits(p3=(1.0, 1.0)), row("a red")), (logits(p4=(2.0, 1.0)), row("cat saw"))]
    assert answer(parts, ONE) == "saw"


def test_no_answer_needs_a_score_beyond_the_threshold_in_every_window():
    span = {"p4": (2.0, 1.0)}
    assert answer([(logits(null=3.0, **span), row("a red"))], NULL) == "red"  # a tie is an answer
    assert answer([(logits(null=3.1, **span), row("a red"))], NULL) == ""
    assert answer([(logits(null=3.1, **span), row("a red"))], ONE) == "red"  # 1.1 knows no such answer
    assert answer([(logits(null=3.1, **span), row("a red"))], Search(20, 30, 0.5)) == "red"
    parts = [(logits(null=3.1, **span), row("a red")), (logits(null=2.0), row("cat saw"))]
    assert answer(parts, NULL) == "red"  # the lowest score of "no answer" counts


def test_pairs_are_made_of_the_n_best_and_match_brute_force():
    generator = np.random.default_rng(0)
    for _ in range(50):
        starts, ends = generator.normal(size=(2, 30))
        value, start, end = best_span(starts, ends, Search(30, 7, None))
        best = max((starts[i] + ends[j], i, j) for i in range(30) for j in range(i, min(30, i + 7)))
        assert (value, start, end) == pytest.approx(best)
    value, *_ = best_span(np.array([0.0, 9.0]), np.array([9.0, 0.0]), Search(1, 30, None))
    assert value == -np.inf  # the one start is behind the one end


SCORES = [  # exact match and F1 counted by hand
    ("red cat", ["red cat"], 1, 1),
    ("The red, cat!", ["red  CAT"], 1, 1),
    ("an apple a day", ["apple day"], 1, 1),
    ("theory", ["the ory"], 0, 0),  # an article is a word, not three letters
    ("red cat", ["a dog", "the red cat saw"], 0, 4 / 5),
    ("cat", ["dog", "cat"], 1, 1),
    ("cat cat cat", ["cat cat dog"], 0, 2 / 3),
    ("big cat", ["cat"], 0, 2 / 3),
    ("", ["cat"], 0, 0),
    ("the", ["cat"], 0, 0),
    ("", [], 1, 1),
    ("cat", [], 0, 0),
    ("the", [], 1, 1),
    ("", ["a", "cat"], 0, 0),  # a gold answer of articles alone does not count
    ("U.S.", ["US"], 1, 1),
    ("well-known", ["well known"], 0, 0),  # punctuation goes, it does not become a space
]


@pytest.mark.parametrize(("found", "golds", "exact", "f1"), SCORES)
def test_scores_match_those_counted_by_hand(found: str, golds: list[str], exact: float, f1: float):
    assert score(found, golds) == (exact, pytest.approx(f1))


def official(found: str, golds: list[str]) -> tuple[float, float]:
    """Score one answer the long way: character by character, word by word."""
    marks = r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""

    def plain(text: str) -> list[str]:
        kept = "".join(letter for letter in text.lower() if letter not in marks)
        return [word for word in kept.split() if word not in {"a", "an", "the"}]

    def overlap(ours: list[str], theirs: list[str]) -> float:
        if not ours or not theirs:
            return float(ours == theirs)
        left, shared = list(theirs), 0
        for word in ours:
            if word in left:
                left.remove(word)
                shared += 1
        if shared == 0:
            return 0.0
        precision, recall = shared / len(ours), shared / len(theirs)
        return 2 * precision * recall / (precision + recall)

    kept = [plain(text) for text in golds if plain(text)] or [[]]
    return float(plain(found) in kept), max(overlap(plain(found), one) for one in kept)


def test_scores_match_an_independent_count_on_random_answers():
    draw = random.Random(0)  # noqa: S311 - toy data
    words = ["a", "The", "cat,", "Cat", "dog", "an", "U.S.", "red"]
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(600)]
    for found, *golds in zip(*[iter(texts)] * 4, strict=False):
        assert score(found, golds) == pytest.approx(official(found, golds))


def test_the_table_has_one_row_per_question():
    outputs = np.stack([logits(p3=(1.0, 1.0)), logits(p4=(2.0, 1.0)), logits(p3=(1.0, 1.0), null=4.0)])
    samples = [
        row("a red", example=7, answers=("saw",)),
        row("cat saw", example=7, answers=("saw",)),
        row("big fish", example=2),
    ]
    found = table(outputs, samples, NULL)
    assert found["predictions"].tolist() == ["saw", ""]
    assert found["exact_match"].tolist() == found["f1"].tolist() == [1.0, 1.0]
    assert found["correct"].tolist() == [True, True]
    forced = Squad(version="1.1").rows(outputs, outputs, samples)
    assert forced["predictions"].tolist() == ["saw", "big"]
    assert Squad().metrics(forced) == {"f1": 0.5, "exact_match": 0.5}


# --- comparison ---


def answered(task: Squad) -> tuple[np.ndarray, list[dict[str, Any]]]:
    rows = task.load("validation", tiny_tokenizer()).to_list()
    model = tiny_model(head="question-answering")
    pad = partial(collate, tokenizer=tiny_tokenizer())
    return torch_outputs(model, rows, task_output=task.output, collate=pad, batch_size=7), rows


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_a_comparison_counts_questions_not_windows(version: Any, tmp_path: Path):
    write_questions(tmp_path / "validation.json", 30, seed=0, unanswerable=version == "2.0")
    task = Squad(path=tmp_path, version=version, max_length=32, stride=8)
    dense, rows = answered(task)
    assert len(rows) > 30
    outputs = dense + np.random.default_rng(0).normal(size=dense.shape)
    quality = compare(task, outputs, dense, rows, Resampling(resamples=50))
    before, after = (task.rows(z, dense, rows) for z in (dense, outputs))
    assert quality.rows == 30
    assert quality.metric == "f1"
    assert quality.dense == pytest.approx({name: before[name].mean() for name in ("f1", "exact_match")})
    changed = [one != other for one, other in zip(before["predictions"], after["predictions"], strict=True)]
    assert quality.churn == pytest.approx(np.mean(changed)) != 0
    assert quality.lost == pytest.approx(np.mean((before["exact_match"] == 1) & (after["exact_match"] < 1)))
    assert quality.gained == pytest.approx(np.mean((before["exact_match"] < 1) & (after["exact_match"] == 1)))
    divergences = task.divergences(torch.from_numpy(outputs), torch.from_numpy(dense))
    assert quality.kl == pytest.approx(float(divergences.mean()), rel=1e-4)
    same = compare(task, dense, dense, rows, Resampling(resamples=50))
    assert (same.churn, same.lost, same.gained, same.kl, same.difference.value) == (0, 0, 0, 0, 0)


def test_a_draw_takes_all_windows_of_a_question_or_none(tmp_path: Path):
    write_questions(tmp_path / "validation.json", 30, seed=0)
    rows = load(tmp_path, max_length=32, stride=8)
    drawn = draw_examples(rows, 10, seed=3)
    examples = {one["example"] for one in drawn}
    assert len(examples) == 10
    assert drawn == [one for one in rows if one["example"] in examples]
    assert draw_examples(rows, None, seed=3) == rows
    plain = [{"labels": number} for number in range(30)]
    order = np.random.default_rng(3).permutation(30)
    assert draw_examples(plain, 10, seed=3) == [plain[number] for number in sorted(order[:10])]


# --- real data ---


@pytest.mark.real
@pytest.mark.parametrize(("split", "count"), [("train", 3939), ("validation", 700)])
def test_every_answer_of_the_real_slice_is_found_again_in_its_tokens(split: Any, count: int, shared: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "all-MiniLM-L6-v2")
    path = shared / "data" / "squad_slice"
    task = Squad(path=path, validation_split=split, max_length=192, stride=64)
    rows = task.load("validation", tokenizer).to_list()
    found = {one["example"]: 0 for one in rows}
    assert len(found) == count < len(rows)
    for one in rows:
        if one["labels"] != [0, 0]:
            start, end = (position - one["window"][0] for position in one["labels"])
            text = one["context"][one["starts"][start] : one["ends"][end]]
            gold = one["answers"][0].strip()
            assert gold in text  # a token may hold more than the answer, as in "1990s" for "1990"
            assert len(text) - len(gold) < 20
            found[one["example"]] += text == gold
    exact = sum(times > 0 for times in found.values())
    assert exact >= 0.98 * count
    perfect = np.zeros((len(rows), 2, 192), np.float32)
    for z, one in zip(perfect, rows, strict=True):
        z[[0, 1], one["labels"]] = 9.0  # position 0 where the window does not hold the answer
    metrics = Squad(path=path, max_answer_length=60).metrics(task.rows(perfect, perfect, rows))
    assert metrics["exact_match"] >= 0.97
    assert metrics["f1"] >= 0.99
