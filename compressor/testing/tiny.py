"""Tiny models of every family, a tokenizer, a batch, and the prunings that go wrong first."""

# ruff: noqa: S106 - special tokens are no passwords

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from compressor.model import checkpoint
from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.plugin.components import Head

TEXT = "the a cat dog fish bird ate saw likes big small red good bad fast slow film plot very not is was"
WORDS = tuple(TEXT.split())
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE: Mapping[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "share_att_key": True,
        "position_buckets": 8,
    },
    "modernbert": {"local_attention": 8}
    | dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
}
"""What else makes a tiny model one of its kind."""
AUTO: Mapping[Head, Any] = {
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
    "feature-extraction": AutoModel,
}
DISTILBERT_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}


def tiny_model(
    model_type: str = "bert",
    *,
    head: Head = "sequence-classification",
    num_labels: int | None = 2,
    seed: int = 0,
    attention: str | None = None,
    **shape: Any,
) -> nn.Module:
    """Build a random encoder of a few thousand weights, in eval mode.

    Args:
        model_type: ``bert``, ``roberta``, ``electra``, ``distilbert``, ... as in the model's config.
        head: what stands on the encoder; for ``"question-answering"`` ``num_labels`` must be 2.
        num_labels: outputs of the head; None gives the bare encoder.
        seed: of the weights, which are larger than usual so that every unit matters.
        attention: implementation, ``"eager"`` or ``"sdpa"``; None = transformers' choice.
        shape: replacements for ``SHAPE``.
    """
    sizes = {**SHAPE, **DEFAULTS.get(model_type, {}), **shape}
    if model_type == "distilbert":
        sizes = {DISTILBERT_NAMES.get(name, name): size for name, size in sizes.items()}
    if model_type == "electra":
        sizes["embedding_size"] = 16
    config = AutoConfig.for_model(model_type, pad_token_id=0, initializer_range=0.2, **sizes)
    if num_labels is not None:
        config.num_labels = num_labels
    auto: Any = AutoModel if num_labels is None else AUTO[head]
    torch.manual_seed(seed)
    model: nn.Module = auto.from_config(config, attn_implementation=attention).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers starts biases at 0, which would hide a lost bias
            nn.init.normal_(parameter, std=0.1)
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer over ``WORDS`` that frames with ``[CLS]`` and ``[SEP]``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' constructor has no types
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=160,
    )


def tiny_checkpoint(path: Path, model_type: str = "bert", **options: Any) -> Path:
    """Save a tiny model, made with the options of ``tiny_model``, and its tokenizer as a checkpoint directory."""
    checkpoint.save(tiny_model(model_type, **options), path)
    tiny_tokenizer().save_pretrained(path)
    return path


def tiny_batch(*, lengths: tuple[int, ...] = (7, 3, 12, 5), labels: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """Build a padded batch with ragged lengths: ``input_ids`` and ``attention_mask`` (B, T), ``labels`` (B,)."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    ids = torch.randint(5, SHAPE["vocab_size"], mask.shape, generator=generator) * mask
    batch = {"input_ids": ids, "attention_mask": mask}
    if labels:
        batch["labels"] = torch.randint(0, 2, (len(lengths),), generator=generator)
    return batch


def example_masks(groups: Sequence[PrunableGroup], *, seed: int = 0) -> dict[str, Masks]:
    """Build the prunings that go wrong first, by what they leave: for conformance tests of surgery and export.

    ``"ragged"`` leaves half, all, and then nothing, counting up the layers, attention and FFN in opposite order.
    """
    generator = torch.Generator().manual_seed(seed)

    def masks(heads: Callable[[PrunableGroup], int], neurons: Callable[[PrunableGroup], int]) -> Masks:
        keep = {}
        for group in groups:
            count = heads(group) if group.kind == "heads" else neurons(group)
            keep[group.name] = torch.randperm(group.units, generator=generator) < count
        return Masks(keep)

    def every(group: PrunableGroup) -> int:
        return group.units

    return {
        "ragged": masks(lambda g: (g.units // 2, g.units, 0)[g.index % 3], lambda g: (0, g.units, 7)[g.index % 3]),
        "one head": masks(lambda _: 1, every),
        "one neuron": masks(every, lambda _: 1),
        "no heads": masks(lambda _: 0, every),
        "no neurons": masks(every, lambda _: 0),
        "nothing": masks(lambda _: 0, lambda _: 0),
    }
