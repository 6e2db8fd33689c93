"""Load what ``make.py`` wrote in the tools that people serve with: ``python tests/interop/load.py DIR``.

Runs in an environment of its own, without this project: optimum-onnx pins an older transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import optimum.version
import sentence_transformers
import transformers
from optimum.onnxruntime import ORTModelForSequenceClassification
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

TOLERANCE = 1e-4


def main() -> None:
    """Compare every file's answers with those of ``compressor.ort_session``; raise where they differ."""
    place = Path(sys.argv[1])
    print(
        f"transformers {transformers.__version__}, optimum {optimum.version.__version__}, "
        f"sentence-transformers {sentence_transformers.__version__}"
    )
    for name, ask in (("classifier", classify), ("encoder", encode)):
        told = json.loads((place / name / "answers.json").read_text())
        for file, expected in told["answers"].items():
            found = ask(place / name / "out", file, told["texts"])
            apart = float(np.abs(found - np.array(expected)).max())
            print(f"{name} {file}: largest difference {apart:.2g}")
            if not apart <= TOLERANCE:
                raise SystemExit(f"{name} {file}: {apart} is more than {TOLERANCE}")


def classify(out: Path, file: str, texts: list[str]) -> np.ndarray:
    """Return the logits that optimum gives."""
    model = ORTModelForSequenceClassification.from_pretrained(out, file_name=file)
    batch = AutoTokenizer.from_pretrained(out)(texts, padding=True, return_tensors="pt")
    return np.asarray(model(**batch).logits)


def encode(out: Path, file: str, texts: list[str]) -> np.ndarray:
    """Return the embeddings that sentence-transformers gives with its ONNX backend."""
    model = SentenceTransformer(str(out), backend="onnx", device="cpu", model_kwargs={"file_name": file})
    return np.asarray(model.encode(texts))


if __name__ == "__main__":
    main()
