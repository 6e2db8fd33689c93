"""A finished run's model in onnxruntime, as it was measured to be fastest. Importing this module does not import torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.model.runtime import PROVIDERS, SLOW_FUSION, SessionOptions, open_session, session_config

ORT_CONFIG = "ort_config.json"
PORTABLE = "model.onnx"


def ort_session(directory: str | Path, *, file: str | None = None, threads: int = 0) -> Any:
    """Open the model of a run's directory in onnxruntime, with the options that verification measured to be best.

    Args:
        directory: of a finished run, or a copy of its files; ``ort_config.json`` says which file and which options.
            Without it, as no verification was asked for, it is ``model.onnx`` on the CPU.
        file: another file of the directory, e.g. ``"model.onnx"``.
        threads: intra-op threads; 0 = onnxruntime's own choice.

    Returns:
        An ``onnxruntime.InferenceSession``; ``session.run(None, {"input_ids": ..., "attention_mask": ...})``.

    Raises:
        InputError: there is no such directory or file, or ``ort_config.json`` is damaged.
        SetupError: onnxruntime or the provider is missing.
    """
    place = Path(directory)
    if not place.is_dir():
        raise InputError(f"{place}: no such directory", hint="name the directory that compress apply wrote")
    config = served_config(place)
    options = SessionOptions(
        provider=config["provider"],
        threads=threads,
        slow_fusion=SLOW_FUSION not in config["session_config"].values(),
    )
    return open_session(place / (file or config["file"]), options)


def served_config(directory: Path) -> dict[str, Any]:
    """Return what ``ort_config.json`` of a run's directory recommends; ``model.onnx`` on the CPU where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / ORT_CONFIG
    if not path.exists():
        return {"file": PORTABLE, "provider": "cpu", "session_config": session_config("cpu", slow_fusion=False)}
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sound = (
            Path(config["file"]).name == config["file"]
            and config["provider"] in PROVIDERS
            and isinstance(config["session_config"], dict)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: {error!r}", hint="run the recipe again, or remove the file: model.onnx is then served"
        ) from error
    if not sound:
        raise InputError(f"{path} is damaged: expected file, provider and session_config, got {config}")
    return config
