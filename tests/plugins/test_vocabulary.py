"""Smaller tokenizers cut text of kept tokens as the whole ones do: WordPiece, BPE, Unigram and whole words."""

# ruff: noqa: S106 - special tokens are no passwords

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from compressor.errors import InputError
from compressor.model import embeddings
from compressor.plugin import Target
from compressor.run.session import Session
from compressor.testing import assert_method_conforms, tiny_checkpoint, tiny_session
from compressor_plugins.methods._tokenizer_files import rewritten, rewritten_files
from compressor_plugins.methods._tokenizer_kinds import Bpe, model_of
from compressor_plugins.methods._tokenizer_models import TokenizerModel
from compressor_plugins.methods._vocabulary import check, chosen, corpus_texts
from compressor_plugins.methods.vocabulary import Vocabulary

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
LANGUAGES = [
    "the quick brown fox jumps over the lazy dog and the quickest foxes jumped over lazier dogs",
    "der schnelle braune Fuchs springt über den faulen Hund und die schnellsten Füchse sprangen",
    "le renard brun rapide saute par-dessus le chien paresseux et les renards rapides sautèrent",
    "быстрая коричневая лиса прыгает через ленивую собаку и быстрые лисы прыгали",
    "敏捷的棕色狐狸跳过了懒狗 敏捷的狐狸跳过了狗",
]


def corpus() -> list[str]:
    draw = random.Random(0)  # noqa: S311 - toy data
    words = [text.split() for text in LANGUAGES]
    return [" ".join(draw.choices(draw.choice(words), k=6)) for _ in range(300)]


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIALS))
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIALS, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def suffixed() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIALS, end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=SPECIALS, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus(), trainer)
    frame = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=frame)
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(corpus(), trainers.WordLevelTrainer(special_tokens=SPECIALS))
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": wordpiece,
    "byte-level": byte_level,
    "suffixed": suffixed,
    "unigram": unigram,
    "words": words,
}


def data_of(tokenizer: Tokenizer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.to_str())
    return found


def texts_of(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield texts, and strings that are put together of the tokenizer's own pieces, which is where cutting is hard."""
    draw = random.Random(1)  # noqa: S311 - toy data
    pieces = sorted(tokenizer.get_vocab())
    yield from corpus()[:60]
    for _ in range(600):
        letters = "".join(draw.choices(pieces, k=3)).replace("##", "").replace("</w>", "").replace("▁", " ")
        yield tokenizer.decode(tokenizer.encode(letters).ids) if draw.random() < 0.3 else letters
        yield "".join(draw.choices("abcdefghijklmnopqrstuvwxyzüß быстряколи敏捷狐狸€", k=draw.randint(1, 8)))


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


def smaller(whole: Tokenizer, stay: set[int], **options: Any) -> tuple[Tokenizer, list[int]]:
    pieces = model_of(data_of(whole), keep_alphabet=options.pop("keep_alphabet", True))
    tokens = sorted(pieces.closed(stay | pieces.required))
    ids = {old: new for new, old in enumerate(tokens)}
    return Tokenizer.from_str(json.dumps(rewritten(data_of(whole), pieces, ids, None))), tokens


def half(whole: Tokenizer) -> set[int]:
    """Return the tokens of English and Russian texts."""
    return {token for text in (LANGUAGES[0], LANGUAGES[3]) for token in whole.encode(text).ids}


@pytest.mark.parametrize("keep_alphabet", [True, False])
def test_text_made_of_kept_tokens_is_cut_as_before(whole: Tokenizer, keep_alphabet: Any):
    found, tokens = smaller(whole, half(whole), keep_alphabet=keep_alphabet)
    assert 4 < len(tokens) < whole.get_vocab_size()
    assert found.get_vocab_size() == len(tokens)
    unknown = whole.token_to_id("<unk>")
    compared = others = 0
    for text in texts_of(whole):
        before, after = whole.encode(text), found.encode(text)
        if unknown in before.ids and data_of(whole)["model"]["type"] in {"WordPiece", "WordLevel"}:
            continue  # an unknown word is not made of tokens, and a smaller vocabulary may know it
        if set(before.ids) <= set(tokens):
            compared += 1
            assert [tokens[token] for token in after.ids] == before.ids, text
            assert after.tokens == before.tokens
        else:
            others += 1
    assert compared > 10
    assert others > 10


def test_every_character_stays_known_with_the_alphabet(whole: Tokenizer):
    if data_of(whole)["model"]["type"] == "WordLevel":
        return
    found, _ = smaller(whole, set())
    unknown = found.token_to_id("<unk>")
    for text in corpus():
        assert unknown not in found.encode(text).ids or whole.token_to_id("<unk>") in whole.encode(text).ids


def framed(processor: Any) -> Tokenizer:
    """Return a tokenizer whose special tokens stand behind a word that will go."""
    vocab = {"gone": 0, "the": 1, "<pad>": 2, "<s>": 3, "</s>": 4, "<unk>": 5, "dog": 6}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.post_processor = processor
    return tokenizer


@pytest.mark.parametrize(
    "processor",
    [
        processors.BertProcessing(("</s>", 4), ("<s>", 3)),
        processors.RobertaProcessing(("</s>", 4), ("<s>", 3)),
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 3), ("</s>", 4)]),
        processors.Sequence([processors.BertProcessing(("</s>", 4), ("<s>", 3))]),
    ],
    ids=["bert", "roberta", "template", "sequence"],
)
def test_frames_and_lengths_follow(processor: Any):
    whole = framed(processor)
    whole.enable_padding(pad_id=2, pad_token="<pad>", length=9)
    whole.enable_truncation(9)
    pieces = model_of(data_of(whole), keep_alphabet=False)
    tokens = [1, 2, 3, 4, 5, 6]
    data = rewritten(data_of(whole), pieces, {old: new for new, old in enumerate(tokens)}, 6)
    found = Tokenizer.from_str(json.dumps(data))
    assert found.encode("the dog").ids == [2, 0, 5, 3, 1, 1]
    assert [tokens[token] for token in found.encode("the dog").ids] == whole.encode("the dog").ids[:6]
    assert found.encode("the dog gone the dog the dog").ids == [2, 0, 5, 4, 0, 3]
    assert [(token["id"], token["content"]) for token in data["added_tokens"]] == [
        (1, "<pad>"), (2, "<s>"), (3, "</s>"), (4, "<unk>"),
    ]  # fmt: skip


def test_a_merged_token_keeps_all_that_it_is_merged_from():
    whole = byte_level()
    pieces = model_of(data_of(whole), keep_alphabet=False)
    assert isinstance(pieces, Bpe)
    longest = max(pieces.own, key=lambda token: len(pieces.own[token]) * (token > 3))
    found, tokens = smaller(whole, {longest}, keep_alphabet=False)
    text = whole.decode([longest])
    assert [tokens[token] for token in found.encode(text, add_special_tokens=False).ids] == [longest]
    assert len(tokens) > 256 + 4, "bytes and intermediate tokens"
    assert len(tokens) < 256 + 4 + len(pieces.own[longest])


def test_bytes_of_a_fallback_always_stay():
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "a": 257, "b": 258, "ab": 259}
    model = {"type": "BPE", "vocab": vocab, "merges": ["a b"], "unk_token": "<unk>", "byte_fallback": True}
    pieces = model_of({"model": model, "added_tokens": []}, keep_alphabet=False)
    assert pieces.required == set(range(257))
    assert pieces.closed({259}) == {257, 258, 259}


def test_what_an_unknown_character_costs_stays_the_same():
    vocab = [["<unk>", 0.0], ["▁", -2.0], ["ab", -3.0], ["xy", -14.0], ["z", -30.0]]
    data = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}, "added_tokens": []}
    pieces = model_of(data, keep_alphabet=False)
    assert pieces.required == {0, 4}
    small = pieces.with_only({0: 0, 2: 1, 4: 2})
    assert small["vocab"] == [vocab[0], vocab[2], vocab[4]]
    assert small["unk_id"] == 0


def test_files_beside_it_say_the_same(tmp_path: Path):
    whole = suffixed()
    whole.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 512, "added_tokens_decoder": {"3": {"content": "<unk>"}}})
    )
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<unk>": 3}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"binary")
    data = data_of(whole)
    pieces = model_of(data, keep_alphabet=True)
    tokens = sorted(pieces.closed(half(whole) | pieces.required) - {0})
    data["added_tokens"] = data["added_tokens"][1:]
    pieces = model_of(data, keep_alphabet=True)
    files = rewritten_files(data, pieces, tmp_path, tokens, 64)
    assert set(files) == {path.name for path in tmp_path.iterdir()} - {"sentencepiece.bpe.model"} | {"tokenizer.json"}
    model = json.loads(files["tokenizer.json"])["model"]
    assert json.loads(files["vocab.json"]) == model["vocab"]
    assert [line.split(" ") for line in files["merges.txt"].splitlines()[1:]] == model["merges"]
    config = json.loads(files["tokenizer_config.json"])
    assert config == {"model_max_length": 64, "added_tokens_decoder": {"2": {"content": "<unk>"}}}
    assert json.loads(files["added_tokens.json"]) == {"<unk>": 2}
    assert json.loads(files["sentence_bert_config.json"]) == {"max_seq_length": 64}


def pieces_of(count: int = 40) -> TokenizerModel:
    vocab = {"<unk>": 0, **{f"word{number}": number for number in range(1, count)}}
    return model_of({"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}, keep_alphabet=True)


def test_the_most_frequent_tokens_stay_up_to_the_target():
    counts = Counter({7: 5, 3: 9, 5: 5, 11: 1})
    every = Vocabulary()
    assert chosen(every, pieces_of(), counts, {0}) == [0, 3, 5, 7, 11]
    assert chosen(Vocabulary(min_count=2), pieces_of(), counts, {0}) == [0, 3, 5, 7]
    assert chosen(Vocabulary(target=Target(vocabulary=0.075)), pieces_of(), counts, {0}) == [0, 3, 5]
    with pytest.raises(InputError, match=r"0.05 allows 2 of 40 tokens; .* are 3") as caught:
        chosen(Vocabulary(target=Target(vocabulary=0.05)), pieces_of(), counts, {0, 1, 2})
    assert "ask for 0.075 or more" in (caught.value.hint or "")


def test_texts_are_the_lines_of_a_file_or_all_columns_of_a_table(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    (tmp_path / "b.csv").write_text("text,label,other\nthree,1,four\nfive,0,six\n")
    assert list(corpus_texts(tmp_path / "a.txt")) == ["one", "two"]
    assert sorted(corpus_texts(tmp_path / "b.csv")) == ["five", "four", "six", "three"]
    (tmp_path / "c.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match="expected UTF-8 text"):
        list(corpus_texts(tmp_path / "c.txt"))


def test_options_that_make_no_sense_are_refused(tmp_path: Path):
    with pytest.raises(ValidationError, match=r"takes target.vocabulary; got target.macs"):
        Vocabulary(target=Target(macs=0.5))
    with pytest.raises(ValidationError, match="nothing would be trimmed"):
        Vocabulary(tokens=False)
    with pytest.raises(ValidationError, match="no such file or directory"):
        Vocabulary.model_validate({"corpus": str(tmp_path / "none.txt")})
    (tmp_path / "some.txt").write_text("some")
    method = Vocabulary.model_validate({"corpus": str(tmp_path / "some.txt"), "keep": str(tmp_path / "some.txt")})
    assert method.files == (tmp_path / "some.txt", tmp_path / "some.txt")
    with pytest.raises(InputError, match="model is CharLevel; expected WordPiece"):
        model_of({"model": {"type": "CharLevel"}}, keep_alphabet=True)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return replace(tiny_session(), source=tiny_checkpoint(tmp_path / "model"))


def test_a_target_of_tokens_conforms_and_is_met(session: Session):
    method = Vocabulary(target=Target(vocabulary=0.6), keep_alphabet=False, positions=64)
    pruned = assert_method_conforms(method, session)
    assert pruned.trimmed is not None
    assert len(pruned.trimmed.tokens) <= 0.6 * len(session.tokenizer)


def test_every_token_that_the_config_names_stays_one_by_one_or_in_lists(session: Session):
    session.model.config.update({"eos_token_id": [25, 26], "bos_token_id": 24})
    method = Vocabulary(target=Target(vocabulary=0.4), keep_alphabet=False)
    trimmed = method.prune(session).trimmed
    assert trimmed is not None
    assert {24, 25, 26} <= set(trimmed.tokens)
    config = embeddings.trimmed(session.model, trimmed.tokens).config
    assert [trimmed.tokens[one] for one in config.eos_token_id] == [25, 26]


def test_a_model_that_names_a_token_without_a_name_is_refused(session: Session):
    session.model.config.update({"eos_token_id": [5, 120]})
    with pytest.raises(
        InputError, match=r"token 120, which config.json names as eos_token_id, is none of the tokenizer"
    ):
        check(Vocabulary(), session, first=True)


def test_a_target_below_what_must_stay_is_known_where_no_step_trims_before(session: Session):
    method = Vocabulary(target=Target(vocabulary=0.01))
    with pytest.raises(InputError, match=r"target.vocabulary 0.01 allows 0 of"):
        method.check_texts(session, first=True)
    method.check_texts(session, first=False)
