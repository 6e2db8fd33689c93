"""Write what the check of ``make interop`` loads: ``python -m tests.interop.make DIR``.

A classifier and a sentence encoder, both pruned to ragged layers and quantised by ordinary runs, and what their files answer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

import compressor
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.pipeline import Conditions, run
from compressor.testing import tiny_checkpoint
from tests.toys import toy_recipe

TEXTS = ["the cat saw a big fish", "a fast red bird", "slow film not good"]
STEPS = [
    {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
    {"export": {"fused": True}},
    {"quantize": "int8-dynamic"},
    {"verify": {"sequence": 16, "rounds": 3}},
]
POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def main() -> None:
    """Make both runs and their answers below a directory."""
    place = Path(sys.argv[1])
    shutil.rmtree(place, ignore_errors=True)
    classifier = toy_recipe(place / "classifier", steps=STEPS)
    encoder = place / "encoder"
    tiny_checkpoint(encoder / "source", num_labels=None)
    (encoder / "source" / "modules.json").write_text(json.dumps(MODULES))
    (encoder / "source" / "1_Pooling").mkdir()
    (encoder / "source" / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    task = {"name": "embedding", "corpus": "python-docs", "max_length": 32}
    sentences = toy_recipe(encoder, model=str(encoder / "source"), task=task, steps=STEPS)
    for recipe in (classifier, sentences):
        registry = Registry.load()
        plan = compile_plan(load_recipe(recipe), registry)
        out = run(plan, recipe.parent / "out", Conditions(registry, torch.device("cpu"))).directory
        answers = {file.name: answer(out, file.name).tolist() for file in sorted(out.glob("*.onnx"))}
        (recipe.parent / "answers.json").write_text(json.dumps({"texts": TEXTS, "answers": answers}))


def answer(out: Path, file: str) -> np.ndarray:
    """Return what a file answers: logits, or the mean of the token vectors."""
    session = compressor.ort_session(out, file=file)
    batch = AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="np")
    known = {entry.name for entry in session.get_inputs()}
    given = {name: array.astype(np.int64) for name, array in batch.items() if name in known}
    found: np.ndarray = session.run(None, given)[0]
    if found.ndim == 2:
        return found
    weights = batch["attention_mask"][..., None]
    return np.asarray((found * weights).sum(1) / weights.sum(1))


if __name__ == "__main__":
    main()
