"""Sessions of onnxruntime: the right package, the asked provider, the same options everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compressor.errors import InputError, SetupError
from compressor.model.openvino import PROVIDER, OpenvinoSession, import_openvino

FLAVOURS = ("onnxruntime", "onnxruntime-gpu")
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": PROVIDER,
}
SLOW_FUSION = "SkipLayerNormFusion"
"""onnxruntime's fused CPU kernel SkipLayerNormalization was measured 6 to 7 times slower than Add + LayerNormalization."""


@dataclass(frozen=True)
class SessionOptions:
    """How a model is run; dense and compressed always get the same.

    Attributes:
        provider: ``"cpu"``, ``"cuda"`` or ``"tensorrt"`` of onnxruntime, or ``"openvino"``, a runtime of its own.
        threads: intra-op threads; 0 = onnxruntime's own choice.
        slow_fusion: leave the SkipLayerNormalization fusion on, as onnxruntime does by default.
    """

    provider: str = "cpu"
    threads: int = 1
    slow_fusion: bool = False


def installed_flavours() -> list[str]:
    """Return the installed onnxruntime distributions with their versions, e.g. ``["onnxruntime 1.31.1"]``."""
    found = []
    for name in FLAVOURS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        SetupError: no flavour is installed, or both are (their wheels overwrite each other's files).
    """
    found = installed_flavours()
    if len(found) > 1:
        raise SetupError(
            f"both {' and '.join(found)} are installed; their files overwrite each other",
            hint="pip uninstall -y onnxruntime onnxruntime-gpu, then install one: pip install 'compressor-onnx[cpu]' "
            "or pip install 'compressor-onnx[gpu]'",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise SetupError(
            f"onnxruntime cannot be imported: {error}",
            hint="pip install 'compressor-onnx[cpu]', or 'compressor-onnx[gpu]' for NVIDIA GPUs",
        ) from error
    return onnxruntime


def require_provider(provider: str) -> Any:
    """Import the runtime of a provider: OpenVINO, or onnxruntime, having seen that it has the execution provider.

    Args:
        provider: a key of ``PROVIDERS``.

    Raises:
        SetupError: the runtime or the provider is missing (onnxruntime itself would silently fall back to the CPU).
    """
    if PROVIDERS[provider] == PROVIDER:
        return import_openvino()
    runtime = import_onnxruntime()
    wanted = PROVIDERS[provider]
    if wanted not in runtime.get_available_providers():
        raise SetupError(
            f"execution provider {wanted} is not available; available: {', '.join(runtime.get_available_providers())}",
            hint="pip install 'compressor-onnx[gpu]' for CUDA, or ask for provider cpu",
        )
    return runtime


def session_config(provider: str, *, slow_fusion: bool) -> dict[str, str]:
    """Return the entries of onnxruntime's session options that keep the slow fusion off where it is slow: on the CPU."""
    off = provider == "cpu" and not slow_fusion
    return {"optimization.disable_specified_optimizers": SLOW_FUSION} if off else {}


def open_session(path: Path, options: SessionOptions | None = None) -> Any:
    """Open an ONNX file in onnxruntime, or in OpenVINO where that is the provider.

    Returns:
        An ``onnxruntime.InferenceSession``, or an ``OpenvinoSession``, which is called in the same way.

    Raises:
        SetupError: the runtime or the provider is missing.
        InputError: the file is missing or the runtime cannot load it.
    """
    options = options or SessionOptions()
    runtime = require_provider(options.provider)
    wanted = PROVIDERS[options.provider]
    if not path.is_file():
        raise InputError(f"{path}: no such ONNX file")
    if wanted == PROVIDER:
        return OpenvinoSession(path, threads=options.threads)
    session_options = runtime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 4  # what goes wrong is raised; printed as well it would be said twice
    for key, value in session_config(options.provider, slow_fusion=options.slow_fusion).items():
        session_options.add_session_config_entry(key, value)
    try:
        session = runtime.InferenceSession(str(path), session_options, providers=[wanted])
    except Exception as error:  # onnxruntime raises a family of types without a common root of its own
        raise InputError(f"{path}: onnxruntime cannot load this file: {error}") from error
    if session.get_providers()[0] != wanted:
        raise SetupError(f"asked for {wanted}, onnxruntime gave {session.get_providers()[0]}")
    return session
