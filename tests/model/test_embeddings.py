"""Trimmed tables give what the whole ones gave, in every family, and plain transformers loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.errors import CompressorError, InputError
from compressor.model import checkpoint, embeddings, max_positions
from compressor.model.outputs import raw_output
from compressor.testing import tiny_batch, tiny_model
from tests.plugins.sessions import FAMILIES

TOKENS = [0, 1, 2, 3, *range(7, 128, 3)]


def batches() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch of kept tokens, padded, in the old ids and in the new."""
    new = tiny_batch(labels=False)
    ids = new["input_ids"] % len(TOKENS) * new["attention_mask"]
    return {**new, "input_ids": torch.tensor(TOKENS)[ids]}, {**new, "input_ids": ids}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_kept_tokens_and_positions_give_exactly_what_they_gave(model_type: str, tmp_path: Path):
    model: Any = tiny_model(model_type)
    before = checkpoint.fingerprint(model)
    old, new = batches()
    smaller: Any = embeddings.trimmed(model, TOKENS, 12)
    with torch.no_grad():
        expected = raw_output(model, old)
        assert torch.equal(raw_output(smaller, new), expected)
    assert smaller.get_input_embeddings().num_embeddings == smaller.config.vocab_size == len(TOKENS)
    assert max_positions(smaller) == 12
    assert checkpoint.fingerprint(model) == before
    assert (model.config.vocab_size, max_positions(model)) != (len(TOKENS), 12)
    checkpoint.save(smaller, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(raw_output(plain, new), expected)


def test_ids_in_the_config_follow_and_those_of_no_token_stay():
    model: Any = tiny_model("bert")
    model.config.update({"sep_token_id": 7, "eos_token_id": [10, 900], "bos_token_id": None})
    config: Any = embeddings.trimmed(model, TOKENS).config
    assert (config.pad_token_id, config.sep_token_id, config.eos_token_id) == (0, 4, [5, 900])
    assert config.bos_token_id is None
    assert model.config.sep_token_id == 7


def test_tokens_that_a_config_names_in_a_list_must_stay_too():
    model: Any = tiny_model("bert")
    model.config.update({"sep_token_id": 7, "eos_token_id": [10, 8, 900], "bos_token_id": None})
    assert embeddings.named_tokens(model) == {0: "pad_token_id", 7: "sep_token_id"} | dict.fromkeys(
        (10, 8), "eos_token_id"
    )
    with pytest.raises(CompressorError, match=r"token 8 must stay: config.json names it as eos_token_id"):
        embeddings.trimmed(model, TOKENS)


def test_the_padding_row_moves_with_its_token():
    model: Any = tiny_model("bert")
    model.get_input_embeddings().padding_idx = model.config.pad_token_id = 7
    smaller: Any = embeddings.trimmed(model, TOKENS[1:])
    assert smaller.get_input_embeddings().padding_idx == smaller.config.pad_token_id == 3


def test_a_token_that_the_model_needs_cannot_go():
    with pytest.raises(CompressorError, match="token 0 must stay"):
        embeddings.trimmed(tiny_model("bert"), [1, 2, 3])
    model: Any = tiny_model("bert")
    model.config.sep_token_id = 8
    with pytest.raises(CompressorError, match=r"token 8 must stay: config.json names it as sep_token_id"):
        embeddings.trimmed(model, TOKENS)


def test_roberta_counts_positions_from_its_padding_which_keeps_its_id():
    model: Any = tiny_model("roberta")
    for table in (model.get_input_embeddings(), model.roberta.embeddings.position_embeddings):
        table.padding_idx = 1
    assert embeddings.first_position(model) == 2
    with pytest.raises(CompressorError, match="counts positions from the id of its padding, 1; it would become 0"):
        embeddings.trimmed(model, TOKENS[1:])


def test_what_cannot_be_trimmed_is_refused():
    model: Any = tiny_model("bert")
    with pytest.raises(InputError, match="expected at most 160, which the model has; got 161"):
        embeddings.trimmed(model, TOKENS, 161)
    model.config.position_embedding_type = "relative_key"
    with pytest.raises(InputError, match="no table of absolute positions"):
        embeddings.trimmed(model, TOKENS, 12)
    model.get_output_embeddings = model.get_input_embeddings
    with pytest.raises(InputError, match="has output embeddings"):
        embeddings.trimmed(model, TOKENS)
