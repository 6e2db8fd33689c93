"""Every component that is installed keeps its contract: what is added without a case here is a failing test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from compressor.model import Artifact
from compressor.plugin import ModelFamily, Registry
from compressor.plugin.registry import Registered
from compressor.testing import (
    WORDS,
    assert_criterion_conforms,
    assert_exporter_conforms,
    assert_family_conforms,
    assert_loss_conforms,
    assert_method_conforms,
    assert_metric_conforms,
    assert_pattern_conforms,
    assert_quantizer_conforms,
    assert_task_conforms,
    tiny_checkpoint,
    tiny_model,
    tiny_session,
)
from tests.tables import TAGS, candidate_rows, tagged_rows, write_lines
from tests.toys import write_questions, write_rows

REGISTRY = Registry.load()
CONTEXT = {"registry": REGISTRY}
TRAIN: dict[str, Any] = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3}
MACS, SPARSITY, HEADS = {"target": {"macs": 0.5}}, {"target": {"sparsity": 0.5}}, {"target": {"heads": 0.5}}
METHODS: dict[str, dict[str, Any]] = {
    "fisher": MACS,
    "kprune": MACS,
    "obs": MACS,
    "heads": HEADS,
    "smp": {**HEADS, "scorer": {"train": {"lessons": 2, "swaps": 2, "steps": 2, "batch_size": 4}}},
    "vocabulary": {"min_count": 1},
    "drop-layers": {"target": {"layers": 0.5}},
    "one_shot": {**SPARSITY, "pattern": "2:4"},
    "sparsegpt": {**SPARSITY, "pattern": "1x1"},
    "gradual": {**SPARSITY, "pattern": "1x1", "end_step": 4, "pruning_frequency": 1, "train": TRAIN},
    "cap": {"target": {"params": 0.5}, "train": {**TRAIN, "max_steps": 1, "losses": ["task", "distillation"]}},
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "token-classification": tagged_rows(12, seed=0),
    "reranking": candidate_rows(8, seed=0),
    "regression": [{"text": f"the {word} cat", "label": number / 3} for number, word in enumerate(WORDS[:12])],
    "multi-label-classification": [
        {"text": f"the {word} cat", "label": ["a", "b", "c"][: number % 4]} for number, word in enumerate(WORDS[:12])
    ],
}
LABELS = {"token-classification": {"labels": TAGS}, "multi-label-classification": {"labels": ("a", "b", "c")}}
CONTRAST = {"modules": ["SnC", "FiC"]}  # the third bank needs a pre-trained checkpoint


def rows_of(name: str, place: Path) -> dict[str, Any]:
    """Write toy data and return the options of a task that reads it."""
    if name == "squad":
        for seed, split in enumerate(("train", "validation")):
            write_questions(place / f"{split}.json", 12, seed=seed)
        return {"path": str(place), "max_length": 32, "stride": 8}
    if name == "embedding":
        (place / "texts.jsonl").write_text("".join(f'{{"text": "the {n} cat saw a dog"}}\n' for n in range(24)))
        return {"train": str(place / "texts.jsonl"), "validation": str(place / "texts.jsonl"), "max_length": 16}
    if name == "glue":
        lines = [f"the film is {word}\t{label}\n" for word, label in (("good", 1), ("bad", 0)) for _ in range(6)]
        for split in ("train", "validation"):
            (place / f"{split}.tsv").write_text("".join(["sentence\tlabel\n", *lines]))
        return {"subset": "sst2", "path": str(place), "max_length": 16}
    if name in ROWS:
        files = {split: str(write_lines(place / f"{split}.jsonl", ROWS[name])) for split in ("train", "validation")}
        return {**files, **LABELS.get(name, {})}
    return {f"{split}": str(write_rows(place / f"{split}.csv", 12, seed=0)) for split in ("train", "validation")}


def made(one: Registered, **options: Any) -> Any:
    return one.cls.model_validate(options, context=CONTEXT)


def family_conforms(one: Registered, _: Path) -> None:
    for model_type in cast("ModelFamily", made(one)).model_types:
        assert_family_conforms(made(one), model_type)


def method_conforms(one: Registered, place: Path) -> None:
    method = made(one, **METHODS.get(one.name, MACS))
    session = replace(tiny_session(), source=tiny_checkpoint(place / "model")) if method.reads_texts else None
    assert_method_conforms(method, session)


def loss_conforms(one: Registered, _: Path) -> None:
    contrast = one.name == "contrastive"  # compares the batch's samples with one another
    assert_loss_conforms(made(one, **(CONTRAST if contrast else {})), separable=not contrast)


@cache
def exported(place: Path) -> Artifact:
    """Export a tiny model, once for all quantizers."""
    names = {"input_names": ("input_ids", "attention_mask"), "output_names": ("logits",)}
    exporter: Any = REGISTRY.get("exporter", "onnx")()
    artifact: Artifact = exporter.export(tiny_model(), place / "conformance.onnx", **names)
    return artifact


KINDS: dict[str, Callable[[Registered, Path], Any]] = {
    "method": method_conforms,
    "criterion": lambda one, _: assert_criterion_conforms(made(one)),
    "pattern": lambda one, _: assert_pattern_conforms(made(one)),
    "family": family_conforms,
    "loss": loss_conforms,
    "metric": lambda one, _: assert_metric_conforms(made(one)),
    "task": lambda one, place: assert_task_conforms(made(one, **rows_of(one.name, place))),
    "exporter": lambda one, _: assert_exporter_conforms(made(one)),
    "quantizer": lambda one, place: assert_quantizer_conforms(made(one), exported(place.parent)),
}


@pytest.mark.usefixtures("own_graphs")
@pytest.mark.parametrize("one", list(REGISTRY.components()), ids=lambda one: f"{one.kind}-{one.name}")
def test_every_component_conforms(one: Registered, tmp_path: Path):
    assert one.kind in KINDS, f"no conformance assertion for components of kind '{one.kind}'"
    KINDS[one.kind](one, tmp_path)
