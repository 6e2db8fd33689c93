from __future__ import annotations

import torch

from compressor.prune import ordinary_tokens, with_random_tokens
from compressor.testing import tiny_tokenizer

TOKENS = torch.arange(10, 30)


def batches() -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(10, 30, (3, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 1, 0
    return [{"input_ids": ids, "attention_mask": (ids > 0).long()}]


def changed(fraction: float, seed: int = 0) -> list[torch.Tensor]:
    found = list(with_random_tokens(batches(), TOKENS, fraction=fraction, seed=seed))
    return [new["input_ids"] for new in found]


def test_about_the_fraction_is_replaced_by_tokens_of_the_list():
    before, after = batches()[0]["input_ids"], changed(0.5)[0]
    share = float((before != after)[:, 1:-1].float().mean())
    assert 0.35 < share < 0.6
    assert torch.isin(after[:, 1:-1], TOKENS).all()


def test_other_tokens_stay_such_as_special_ones_and_padding():
    after = changed(1.0)[0]
    assert (after[:, 0] == 1).all()
    assert (after[:, -1] == 0).all()


def test_nothing_changes_at_zero_and_other_columns_never_do():
    assert torch.equal(changed(0.0)[0], batches()[0]["input_ids"])
    found = next(with_random_tokens(batches(), TOKENS, fraction=1.0, seed=0))
    assert torch.equal(found["attention_mask"], batches()[0]["attention_mask"])


def test_a_row_and_the_seed_decide_alone():
    assert torch.equal(changed(0.5)[0], changed(0.5)[0])
    assert not torch.equal(changed(0.5)[0], changed(0.5, seed=1)[0])
    (batch,) = batches()
    others = {name: torch.nn.functional.pad(tensor.flip(0)[:2], (0, 3)) for name, tensor in batch.items()}
    (found,) = with_random_tokens([others], TOKENS, fraction=0.5, seed=0)
    assert torch.equal(found["input_ids"][:, :40], changed(0.5)[0].flip(0)[:2]), "not its batch, nor its padding"


def test_ordinary_tokens_are_embedded_and_not_special():
    tokenizer = tiny_tokenizer()
    found = ordinary_tokens(tokenizer, below=12)
    assert not set(found.tolist()) & set(tokenizer.all_special_ids)
    assert found.max() < 12
    assert len(found) == 12 - sum(i < 12 for i in tokenizer.all_special_ids)
