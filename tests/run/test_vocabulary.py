"""Whole runs that trim the vocabulary: what is served is what the report says, alone and together with other steps."""

# ruff: noqa: S106 - special tokens are no passwords

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

import compressor
from compressor.cli import main
from compressor.errors import InputError, RecipeError
from compressor.model import checkpoint
from compressor.model.artifact import Artifact
from compressor.model.outputs import raw_output
from compressor.plugin import Component, Quantizer, Registry, Trimmed, hookimpl
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import read_lock
from compressor.recipe.plan import compile_plan
from compressor.recipe.sweep import compile_sweep
from compressor.run.load import open_session
from compressor.run.pipeline import Conditions, Finished
from compressor.run.preflight import check_lengths
from compressor.run.session import Session
from compressor.run.sweep import run_sweep
from compressor.run.trimming import Trimming, keep_trimmed, kept_trimmed, trim
from compressor.testing import WORDS, tiny_model
from compressor.testing.tiny import SHAPE, SPECIALS
from compressor_plugins.methods._source import source_model
from tests import lookup
from tests.plugins.test_vocabulary import KINDS, LANGUAGES
from tests.run.conftest import run_recipe
from tests.run.test_pipeline import Interrupting
from tests.tables import TAGS, named_checkpoint, task_recipe
from tests.toys import squad_recipe, toy_recipe

PIECES = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), "##og", "fi"]
SEEN = ["the", "a", "cat", "dog", "fish", "bird", "ate", "saw", "likes", "big", "small", "red", "good", "bad"]
TRIM = {"prune": {"method": "vocabulary", "positions": 40}}
VERIFY = {"verify": {"sequence": 16, "rounds": 3, "gates": {"size": 0.999}}}


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer that has the toys' words, and letters to cut others into; the special tokens stand behind some."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = [SPECIALS[0], "zebra", *SPECIALS[1:], *PIECES, *WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=frame)
    special = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=160,
        **{f"{name}_token": token for name, token in special.items()},
    )


def trimmed_recipe(directory: Path, **changes: Any) -> Path:
    """Write a toy recipe whose train rows have only a part of the words that its validation rows have."""
    path = toy_recipe(directory, **changes)
    wordpiece_tokenizer().save_pretrained(directory / "checkpoint")
    (directory / "checkpoint" / "vocab.txt").write_text(
        "".join(f"{name}\n" for name in wordpiece_tokenizer().convert_ids_to_tokens(list(range(85))) if name)
    )
    with (directory / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["text"] = " ".join(word for word in row["text"].split() if word in SEEN) or "the cat"
    with (directory / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module", autouse=True)
def _hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        lookup.hurry(patch)
        yield


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("trimmed")
    return run_recipe(trimmed_recipe(directory, steps=[TRIM, {"export": {}}, VERIFY]), directory / "out")


def with_lookup(*plugins: object) -> Registry:
    registry = Registry.load()
    for number, plugin in enumerate((lookup, *plugins)):
        registry.register(plugin, f"test-{number}")
    return registry


def validation(directory: Path) -> tuple[list[str], list[int]]:
    with (directory.parent / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [int(row["label"]) for row in rows]


def test_the_served_tokenizer_and_file_give_what_the_report_says(trimmed: Finished):
    texts, labels = validation(trimmed.directory)
    tokenizer = AutoTokenizer.from_pretrained(trimmed.directory)
    assert tokenizer.model_max_length == 40
    session = onnxruntime.InferenceSession(str(trimmed.directory / "model.onnx"))
    wanted = {given.name for given in session.get_inputs()}
    right = []
    for text, label in zip(texts, labels, strict=True):
        encoded = tokenizer([text], truncation=True, max_length=32, return_tensors="np", return_token_type_ids=True)
        (logits,) = session.run(None, {name: encoded[name] for name in wanted})
        right.append(int(logits.argmax()) == label)
    assert trimmed.report["quality"]["compressed"]["accuracy"] == pytest.approx(np.mean(right))


def test_the_report_says_which_rows_are_cut_as_before(trimmed: Finished):
    found = trimmed.report["vocabulary"]
    texts, _ = validation(trimmed.directory)
    known = [set(text.split()) <= set(SEEN) for text in texts]
    assert 0 < np.mean(known) < 1
    assert found["coverage"]["validation"] == pytest.approx(np.mean(known))
    assert found["coverage"]["train"] == found["coverage"]["calibration"] == 1
    tokens = len(SPECIALS) + len(PIECES) - 2 + len(SEEN) - SEEN.count("a")
    assert found["tokens"] == {"dense": 128, "compressed": tokens}
    assert found["positions"] == {"dense": 160, "compressed": 40}
    assert found["proof"] == {"rows": 8, "max_abs_diff": 0.0}
    assert found["unknown"]["validation"] == {"before": 0.0, "after": 0.0}
    card = (trimmed.directory / "README.md").read_text()
    assert "## Vocabulary" in card
    assert "of the validation rows are cut into the same tokens as before" in card


def test_what_is_left_is_a_plain_checkpoint(trimmed: Finished):
    texts, _ = validation(trimmed.directory)
    source = trimmed.directory.parent / "checkpoint"
    plain = AutoModelForSequenceClassification.from_pretrained(trimmed.directory).eval()
    whole = AutoModelForSequenceClassification.from_pretrained(source).eval()
    loaded = compressor.load(trimmed.directory)
    old, new = (AutoTokenizer.from_pretrained(place) for place in (source, trimmed.directory))
    for text in texts:
        batch = new([text], return_tensors="pt")
        with torch.no_grad():
            found = raw_output(plain, batch)
            assert torch.equal(found, raw_output(loaded, batch))
            if set(text.split()) <= set(SEEN):
                assert torch.equal(found, raw_output(whole, old([text], return_tensors="pt")))
    lines = (trimmed.directory / "vocab.txt").read_text().splitlines()
    assert lines == new.convert_ids_to_tokens(list(range(len(new))))


def test_verify_again_reads_both_tokenizers(trimmed: Finished):
    found = CliRunner().invoke(main, ["verify", str(trimmed.directory), "--json"], catch_exceptions=False)
    again = json.loads(found.stdout)
    assert again["quality"]["compressed"] == trimmed.report["quality"]["compressed"]
    assert again["quality"]["dense"] == trimmed.report["quality"]["dense"]


LOOKED_UP = [TRIM, {"export": "lookup"}, {"verify": {"sequence": 16, "rounds": 3}}]


def files(directory: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    return {name: (directory / name).read_bytes() for name in names}


def test_a_killed_run_resumes_to_the_same_files_and_figures(tmp_path: Path):
    recipe = trimmed_recipe(tmp_path, steps=LOOKED_UP)
    whole = run_recipe(recipe, tmp_path / "whole", registry=with_lookup())
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "killed", registry=with_lookup(Interrupting("verify")))
    second = Interrupting("nothing")
    resumed = run_recipe(recipe, tmp_path / "killed", registry=with_lookup(second))
    assert second.calls == ["verify"]
    assert files(resumed.directory) == files(whole.directory)
    for figure in ("quality", "vocabulary"):
        assert resumed.report[figure] == whole.report[figure]


def test_a_damaged_tokenizer_of_a_stage_is_made_again(tmp_path: Path):
    recipe = trimmed_recipe(tmp_path, steps=LOOKED_UP)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", registry=with_lookup(Interrupting("verify")))
    (damaged,) = tmp_path.glob("out.partial-*/stages/01-prune/tokenizer/tokenizer.json")
    damaged.write_text("{}")
    second = Interrupting("nothing")
    run_recipe(recipe, tmp_path / "out", registry=with_lookup(second))
    assert second.calls == ["prune", "export", "verify"]


def test_a_replay_makes_the_same_bytes_and_refuses_another_corpus(tmp_path: Path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the plot was not slow\n")
    steps = [{"prune": {"method": "vocabulary", "corpus": str(corpus), "keep": ["film"]}}, {"export": "lookup"}]
    first = run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
    kept = set((first.directory / "vocab.txt").read_text().split())
    assert {"plot", "was", "not", "slow", "film"} <= kept
    assert not {"zebra", "very", "fast"} & kept
    lock = first.directory / "recipe.lock.yaml"
    again = run_recipe(lock, tmp_path / "again", registry=with_lookup(), locked=read_lock(lock))
    assert again.reproduced
    assert files(again.directory) == files(first.directory)
    moved, said = tmp_path / "moved.lock.yaml", []
    shutil.copy(corpus, tmp_path / "moved.txt")
    moved.write_text(lock.read_text().replace("corpus.txt", "moved.txt"))
    elsewhere = run_recipe(
        moved, tmp_path / "else", registry=with_lookup(), locked=read_lock(lock), announce=said.append
    )
    assert elsewhere.reproduced
    assert [line.split(": ")[2] for line in said if line.startswith("note")] == ["recipe.steps.0.prune.corpus"]
    corpus.write_text("the plot was very slow\n")
    with pytest.raises(InputError, match="named_files_sha256"):
        run_recipe(lock, tmp_path / "other", registry=with_lookup(), locked=read_lock(lock))


def test_later_steps_work_on_the_new_ids(tmp_path: Path):
    steps = [
        {"prune": {"method": "vocabulary", "target": {"vocabulary": 0.95}}},
        {"prune": {"method": "fisher", "target": {"macs": 0.6}}},
        {"train": {"max_steps": 2, "batch_size": 8, "losses": ["distillation", "hidden"]}},
        {"export": "lookup"},
        {"verify": {"sequence": 16, "rounds": 3}},
    ]
    done = run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
    model: Any = compressor.load(done.directory)
    assert model.config.vocab_size == done.report["vocabulary"]["tokens"]["compressed"] < 85
    assert model.config.pruned_shapes
    assert done.report["model"]["parameters"]["dense"] == sum(p.numel() for p in tiny_model().parameters())
    assert done.report["quality"]["rows"] == 40


def test_trimmed_twice_and_after_another_pruning_still_compares_with_the_dense_model(tmp_path: Path):
    steps = [
        {"prune": {"method": "fisher", "target": {"macs": 0.6}}},
        TRIM,
        {"prune": {"method": "vocabulary", "keep_alphabet": False}},
        {"export": "lookup"},
        {"verify": {"sequence": 16, "rounds": 3}},
    ]
    done = run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
    found = done.report["vocabulary"]
    assert found["tokens"] == {"dense": 128, "compressed": len(SPECIALS) + len(SEEN)}
    assert found["unknown"]["validation"]["after"] > found["unknown"]["validation"]["before"] == 0
    assert len(list(done.directory.glob("stages/*/dense-tokenizer"))) == 1
    rows = done.report["quality"]["dense"]["accuracy"] * 40
    assert rows == pytest.approx(round(rows))


def test_questions_whose_windows_are_cut_differently_are_compared_by_question(tmp_path: Path):
    steps = [{"prune": {"method": "vocabulary"}}, {"export": "lookup-spans"}, {"verify": {"sequence": 16, "rounds": 3}}]
    recipe = squad_recipe(tmp_path, steps=steps)
    wordpiece_tokenizer().save_pretrained(tmp_path / "answers")
    train = json.loads((tmp_path / "answers" / "train.json").read_text())
    for row in train:
        row.update(question="the cat", context="a big dog", answers={"text": ["dog"], "answer_start": [6]})
    (tmp_path / "answers" / "train.json").write_text(json.dumps(train))
    done = run_recipe(recipe, tmp_path / "out", registry=with_lookup(SimpleNamespace(compressor_components=spans)))
    assert 0 <= done.report["vocabulary"]["coverage"]["validation"] < 1
    assert done.report["quality"]["rows"] == 40
    assert done.report["quality"]["kl"] is None, "logits of other tokens"


class LookupSpans(lookup.Lookup):
    """Gives the start and the end logit of every token."""

    name = "lookup-spans"

    def export(
        self, model: Any, path: Path, *, input_names: tuple[str, ...], output_names: tuple[str, ...]
    ) -> Artifact:
        """Write the file."""
        table = model.get_input_embeddings().weight.detach().cpu().numpy()
        tables = [helper.make_node("Gather", [f"table{n}", "input_ids"], [name]) for n, name in enumerate(output_names)]
        tokens: Any = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in input_names]
        logits = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s"]) for name in output_names]
        constants = [numpy_helper.from_array(table[:, n], f"table{n}") for n in range(2)]
        graph = helper.make_graph(tables, "spans", tokens, logits, constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save_model(proto, str(path))
        return Artifact(path, "onnx", 20, input_names, output_names, path.stat().st_size, 0.0)


class LookupTags(lookup.Lookup):
    """Gives the logits of every token."""

    name = "lookup-tags"

    def export(
        self, model: Any, path: Path, *, input_names: tuple[str, ...], output_names: tuple[str, ...]
    ) -> Artifact:
        """Write the file."""
        table = model.get_input_embeddings().weight[:, : model.config.num_labels].detach().cpu().numpy()
        tokens: Any = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in input_names]
        logits = helper.make_tensor_value_info(output_names[0], TensorProto.FLOAT, ["b", "s", table.shape[1]])
        node = helper.make_node("Gather", ["table", "input_ids"], [output_names[0]])
        graph = helper.make_graph([node], "tags", tokens, [logits], [numpy_helper.from_array(table, "table")])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save_model(proto, str(path))
        return Artifact(path, "onnx", 20, input_names, output_names, path.stat().st_size, 0.0)


class Recorder(Quantizer):
    """Writes the largest token id of every batch beside a copy of the file."""

    name = "recorder"

    def quantize(self, artifact: Artifact, data: Any, path: Path) -> Artifact:
        """Copy the file."""
        largest = [int(batch["input_ids"].max()) for batch in data.batches()]
        shutil.copyfile(artifact.path, path)
        path.with_suffix(".json").write_text(json.dumps([*largest, data.drop(path, samples=8)]))
        return replace(artifact, path=path)


@hookimpl
def spans() -> Iterable[type[Component]]:
    yield LookupSpans
    yield LookupTags
    yield Recorder


def tagged_recipe(directory: Path, *, train: list[str], validation: list[str], **changes: Any) -> Path:
    """Write a recipe of a tagger with a tokenizer that cuts words it lost into letters; every word is tagged alike."""
    model = named_checkpoint(directory / "tagger", names=TAGS, head="token-classification")
    wordpiece_tokenizer().save_pretrained(model)
    texts = iter((train, validation))

    def rows(_: int, *, seed: int) -> list[dict[str, Any]]:
        return [
            {"tokens": text.split(), "tags": [TAGS[(seed + len(word)) % 3] for word in text.split()]}
            for text in next(texts)
        ]

    return task_recipe(directory, "token-classification", rows, model=model, **changes)


@pytest.mark.parametrize(
    "validation",
    [["the zebra ate", "zebra likes the cat"], ["the cat " * 9 + "zebra zebra zebra", "the zebra ate"]],
    ids=["words in other places", "a part more"],
)
def test_a_tagger_whose_words_are_cut_differently_is_compared_by_word(validation: list[str], tmp_path: Path):
    recipe = tagged_recipe(
        tmp_path,
        train=["the cat ate", "the dog likes the cat"],
        validation=validation,
        steps=[{"prune": "vocabulary"}, {"export": "lookup-tags"}, {"verify": {"sequence": 16, "rounds": 3}}],
    )
    done = run_recipe(recipe, tmp_path / "out", registry=with_lookup(SimpleNamespace(compressor_components=spans)))
    assert done.report["quality"]["rows"] == 2
    assert done.report["quality"]["kl"] is None, "logits of other tokens"


def test_a_tagger_whose_words_are_cut_as_before_answers_as_before(tmp_path: Path):
    texts = ["the cat ate", "the dog likes the cat " * 7]
    steps = [{"prune": "vocabulary"}, {"export": "lookup-tags"}, {"verify": {"sequence": 16, "rounds": 3}}]
    recipe = tagged_recipe(tmp_path, train=texts, validation=texts, steps=steps)
    done = run_recipe(recipe, tmp_path / "out", registry=with_lookup(SimpleNamespace(compressor_components=spans)))
    quality = done.report["quality"]
    assert (quality["kl"], quality["churn"]) == (0.0, 0.0)


def test_each_model_is_quantised_with_rows_in_its_own_ids(tmp_path: Path):
    steps = [
        {"prune": {"method": "vocabulary", "keep_alphabet": False}},
        {"export": "lookup"},
        {"quantize": "recorder"},
    ]
    registry = with_lookup(SimpleNamespace(compressor_components=spans))
    done = run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=registry)
    stage = done.directory / "stages" / "03-quantize"
    whole, small = (json.loads((stage / f"{name}_int8.json").read_text()) for name in ("dense", "model"))
    ids = wordpiece_tokenizer().convert_tokens_to_ids(SEEN)
    assert max(whole[:-1]) == max(ids)
    assert max(small[:-1]) == len(SPECIALS) + len(SEEN) - 1
    assert whole[-1] == small[-1] == 0


@pytest.mark.parametrize(
    ("model_type", "kind", "kept"),
    [("xlm-roberta", "unigram", "XLMRobertaTokenizer"), ("roberta", "byte-level", "RobertaTokenizer")],
)
def test_multilingual_and_byte_tokenizers_are_served_as_they_are_written(
    model_type: str, kind: str, kept: str, tmp_path: Path
):
    recipe = toy_recipe(
        tmp_path, model_type=model_type, steps=[TRIM, {"export": "lookup"}, {"verify": {"sequence": 16, "rounds": 3}}]
    )
    backend = KINDS[kind]()
    special = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    backend.add_special_tokens(["<mask>"])
    checkpoint.save(offset_model(model_type, backend.get_vocab_size()), tmp_path / "checkpoint")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=150,
        mask_token="<mask>",
        **{f"{k}_token": v for k, v in special.items()},
    )
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    settings = json.loads((tmp_path / "checkpoint" / "tokenizer_config.json").read_text())
    (tmp_path / "checkpoint" / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": kept}))
    for name, languages in (("train", LANGUAGES[:2]), ("validation", LANGUAGES)):
        rows = [{"text": text[: 20 * n], "label": n % 2} for text in languages for n in range(1, 5)]
        (tmp_path / f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
        )
    done = run_recipe(recipe, tmp_path / "out", registry=with_lookup())
    found = done.report["vocabulary"]
    assert found["coverage"]["train"] == found["coverage"]["calibration"] == 1
    assert 0.3 < found["coverage"]["validation"] < 1
    assert found["tokens"]["compressed"] < found["tokens"]["dense"]
    assert found["positions"]["compressed"] == 40
    served = AutoTokenizer.from_pretrained(done.directory)
    config = json.loads((done.directory / "config.json").read_text())
    assert (served.pad_token_id, config["pad_token_id"], config["max_position_embeddings"]) == (1, 1, 42)
    assert served.mask_token_id == len(served) - 1 == found["tokens"]["compressed"] - 1
    source = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    for text in LANGUAGES[:2]:
        assert served.tokenize(text[:20]) == source.tokenize(text[:20])
    if kind == "byte-level":
        text = LANGUAGES[4][:6]
        assert served.decode(served(text)["input_ids"], skip_special_tokens=True) == text


def offset_model(model_type: str, tokens: int) -> Any:
    """Build a tiny model that counts positions from its padding, as RoBERTa's real checkpoints do."""
    sizes = {**SHAPE, "vocab_size": tokens}
    config = AutoConfig.for_model(model_type, pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=2, **sizes)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_points_of_a_sweep_have_tokenizers_of_their_own(tmp_path: Path):
    method = {"method": "vocabulary", "keep_alphabet": False, "target": {"vocabulary": [0.2, 0.1]}}
    registry = Registry.load()
    plan = compile_sweep(load_recipe(trimmed_recipe(tmp_path, steps=[{"prune": method}])), registry)
    run_sweep(plan, tmp_path / "family", Conditions(registry, torch.device("cpu")))
    known = len(wordpiece_tokenizer())
    for share in (0.2, 0.1):
        (point,) = (tmp_path / "family").glob(f"*{share}")
        served: Any = AutoTokenizer.from_pretrained(point)
        assert len(served) == compressor.load(point).config.vocab_size <= share * known < len(served) + 1


def test_points_of_a_sweep_over_vocabularies_share_one_dense_row_and_a_front(tmp_path: Path):
    method = {"method": "vocabulary", "keep_alphabet": False, "target": {"vocabulary": [0.2, 0.1]}}
    steps = [{"prune": method}, {"export": "lookup"}, {"verify": {"sequence": 16, "rounds": 3}}]
    registry = with_lookup()
    plan = compile_sweep(load_recipe(trimmed_recipe(tmp_path, steps=steps)), registry)
    run_sweep(plan, tmp_path / "family", Conditions(registry, torch.device("cpu")))
    rows = json.loads((tmp_path / "family" / "sweep.json").read_text())["rows"]
    assert [row["name"] for row in rows].count("dense") == 1
    assert len(rows) == 3
    assert all(row["pareto"] is not None for row in rows)


@pytest.fixture
def recut(tmp_path: Path) -> tuple[Session, Trimming]:
    """Return a tagger's session and what a trimming makes of it that cuts some of its long rows into more parts."""
    texts = [f"{'the cat ate ' * (1 + n % 8)}{'zebra ' * (n % 5)}" for n in range(24)]
    method = {"method": "vocabulary", "target": {"vocabulary": 0.75}}
    steps = [{"prune": method}, {"export": "lookup-tags"}]
    recipe = tagged_recipe(tmp_path, train=texts, validation=texts, steps=steps, calibration={"samples": 12})
    registry = with_lookup(SimpleNamespace(compressor_components=spans))
    plan = compile_plan(load_recipe(recipe), registry)
    session = open_session(plan, registry, tmp_path, torch.device("cpu"))
    component: Any = plan.steps[0].component
    trimmed = component.prune(session).trimmed
    (tmp_path / "stage").mkdir()
    return session, trim(session, trimmed, session.model, tmp_path / "stage")


def test_calibration_rows_are_the_same_texts_cut_anew(recut: tuple[Session, Trimming]):
    session, trimming = recut
    read = trimming.read
    assert len(read.train_rows) > len(session.train_rows)

    def drawn(rows: Any) -> set[int]:
        return {row["example"] for row in rows}

    assert len(drawn(session.calibration.rows)) < 24
    assert drawn(read.calibration.rows) == drawn(session.calibration.rows)
    known = [row for row in session.calibration.rows if set(row["input_ids"]) <= set(read.kept_tokens)]
    assert 0 < len(known) < len(session.calibration.rows)
    assert trimming.figures["proof"] == {"rows": len(known), "max_abs_diff": 0.0}


def test_what_was_trimmed_is_read_back_whole(recut: tuple[Session, Trimming], tmp_path: Path):
    session, trimming = recut
    trimmed = Trimmed(trimming.read.kept_tokens, {"tokenizer.json": "{}"}, 40)
    (tmp_path / "other").mkdir()
    keep_trimmed(session, trimmed, tmp_path / "other")
    assert kept_trimmed(tmp_path / "other") == trimmed


def test_what_goes_back_to_the_source_gets_the_tokens_that_are_left(recut: tuple[Session, Trimming]):
    session, trimming = recut
    kept = {"model": trimming.model, "teacher": trimming.read.teacher, "untrimmed": session}
    session = replace(session, kept_tokens=trimming.read.kept_tokens, **kept)
    found, expected = source_model(session, "rewind").state_dict(), trimming.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_pre_trained_encoder_contrasts_in_the_ids_that_are_left(tmp_path: Path):
    source = tmp_path / "pretrained"
    checkpoint.save(tiny_model(num_labels=None, seed=3), source)
    losses = ["task", {"name": "contrastive", "modules": ["PrC"], "pretrained": str(source)}]
    steps = [
        TRIM,
        {"prune": {"method": "vocabulary", "keep_alphabet": False}},
        {"train": {"max_steps": 2, "batch_size": 8, "losses": losses}},
    ]
    done = run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
    assert done.report["vocabulary"]["tokens"]["compressed"] == len(SPECIALS) + len(SEEN)


def test_what_a_later_trimming_cannot_do_is_said_before_anything_runs(tmp_path: Path):
    steps = [
        {"prune": {"method": "fisher", "target": {"macs": 0.6}}},
        {"prune": {"method": "vocabulary", "target": {"vocabulary": 0.1}}},
    ]
    watching = Interrupting("nothing")
    with pytest.raises(InputError, match=r"target.vocabulary 0.1 allows 8 of"):
        run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup(watching))
    assert watching.calls == []


def test_lengths_are_those_that_the_model_has_when_a_step_begins(tmp_path: Path):
    latency = {"prune": {"method": "fisher", "target": {"latency": 0.5, "sequence": 100}}}

    def plan_of(*steps: Any) -> Any:
        return compile_plan(load_recipe(trimmed_recipe(tmp_path, steps=[*steps, {"export": "lookup"}])), with_lookup())

    check_lengths(plan_of(latency, TRIM), 160)
    with pytest.raises(RecipeError, match=r"at most 40 tokens, .*; got 100"):
        check_lengths(plan_of(TRIM, latency), 160)


def test_positions_shorter_than_what_is_read_are_refused_before_anything_runs(tmp_path: Path):
    steps = [{"prune": {"method": "vocabulary", "positions": 31}}, {"export": "lookup"}]
    with pytest.raises(RecipeError, match=r"at least task.max_length, 32; got 31"):
        run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
    steps = [TRIM, {"export": "lookup"}, {"verify": {"sequence": 41}}]
    with pytest.raises(
        RecipeError, match=r"at most 40 tokens, the positions that the model has or is left with; got 41"
    ):
        run_recipe(trimmed_recipe(tmp_path, steps=steps), tmp_path / "out", registry=with_lookup())
