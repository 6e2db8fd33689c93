"""Turn a fine-tuned transformer encoder into a smaller ONNX model that is faster in onnxruntime, measured."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, InputError, PluginError, RecipeError, SetupError

if TYPE_CHECKING:
    from compressor.model.served import ort_session
    from compressor.run.load import load

__all__ = ["CompressorError", "InputError", "PluginError", "RecipeError", "SetupError", "load", "ort_session"]
__version__ = version("compressor-onnx")


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name == "load":
        from compressor.run.load import load

        return load
    if name == "ort_session":
        from compressor.model.served import ort_session

        return ort_session
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
