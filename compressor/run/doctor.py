"""What keeps this installation from working, or from working well: each finding with the next step. No torch here."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants
from packaging.requirements import Requirement

from compressor.cpu import saturates
from compressor.model.runtime import PROVIDERS, installed_flavours
from compressor.places import cache, state
from compressor.plugin import Registry
from compressor.run.imports import answers
from compressor.verify.environment import cpu_quota, environment, physical_cores
from compressor.verify.hardware import gpus

OURS = "compressor-onnx"
RIVAL = "django-compressor"
RUNTIME = "pip install 'compressor-onnx[cpu]', or 'compressor-onnx[gpu]' for NVIDIA GPUs"
BUSY = 0.5
"""Load per usable core from which measured latencies are noise."""
ROOM = 2 * 10**9
"""Bytes below which exporting a model of BERT-base's size fails: it holds the weights several times."""

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        status: ``"problem"`` where a run cannot work, ``"warning"`` where it works worse than it could.
        found: what is there.
        next: what to do about it.
    """

    name: str
    status: Status
    found: str
    next: str = ""


def examine() -> Iterator[Finding]:
    """Yield what is found, in the order in which a reader should mend it."""
    said = answers()
    yield from distributions(said)
    yield from runtimes(said)
    yield from plugins()
    yield from processor()
    yield from graphics(said)
    yield from hub()
    yield from places()


def distributions(said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield Python, every distribution that ours requires, and whose the import name is.

    Args:
        said: by library, what it says of itself.
    """
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding(OURS, "ok", version(OURS))
    for requirement in map(Requirement, requires(OURS) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _required(requirement, said.get(requirement.name, {}).get("error", ""))
    if found := _version(RIVAL):
        yield Finding(
            "import name",
            "problem",
            f"{RIVAL} {found} writes to the same package, compressor",
            f"pip uninstall -y {RIVAL}, then pip install --force-reinstall --no-deps {OURS}; one environment each",
        )


def _required(requirement: Requirement, error: str) -> Finding:
    name, wanted = requirement.name, f"{requirement.name}{requirement.specifier}"
    found = _version(name)
    if found is None:
        return Finding(name, "problem", f"not installed; expected {wanted}", f"pip install '{wanted}'")
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(name, "problem", f"{found}; expected {wanted}", f"pip install '{wanted}'")
    if error:
        again = f"pip install --force-reinstall --no-deps {name}=={found}"
        return Finding(name, "problem", f"{found}, which cannot be imported: {error}", again)
    return Finding(name, "ok", found)


def runtimes(said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield onnxruntime, of which there must be one flavour, its execution providers, and OpenVINO where it is."""
    if found := _version("openvino"):
        yield Finding("openvino", "ok", found)
    flavours, answer = installed_flavours(), said.get("onnxruntime", {})
    if len(flavours) > 1:
        both = f"both {' and '.join(flavours)} are installed; their files overwrite each other"
        yield Finding("onnxruntime", "problem", both, f"pip uninstall -y onnxruntime onnxruntime-gpu, then {RUNTIME}")
        return
    if not flavours:
        yield Finding("onnxruntime", "problem", "not installed: nothing can be exported or measured", RUNTIME)
        return
    if "error" in answer:
        yield Finding("onnxruntime", "problem", f"{flavours[0]}, which cannot be imported: {answer['error']}", RUNTIME)
        return
    known = {provider: name for name, provider in PROVIDERS.items()}
    names = [known.get(provider, provider) for provider in answer.get("providers", ())]
    lacking = gpus()["devices"] and "cuda" not in names
    yield Finding(
        "onnxruntime",
        "warning" if lacking else "ok",
        f"{flavours[0]}, providers {', '.join(names)}{'; there is a GPU and no provider for it' if lacking else ''}",
        "to measure on the GPU: pip uninstall -y onnxruntime, pip install 'compressor-onnx[gpu]'" if lacking else "",
    )


def plugins() -> Iterator[Finding]:
    """Yield how many plugins there are, and each that failed to load."""
    registry = Registry.load(strict=False)
    providers = sorted({plugin.provider.distribution for plugin in registry.plugins})
    count = f"{len(registry.plugins)} from {', '.join(providers) or 'nowhere'}"
    nothing = Finding(
        "plugins",
        "problem",
        "none: nothing can be named in a recipe",
        f"pip install --force-reinstall --no-deps {OURS}",
    )
    yield Finding("plugins", "ok", count) if registry.plugins else nothing
    for failure in registry.failures:
        own = failure.provider.distribution
        yield Finding(
            "plugins",
            "problem" if own == OURS else "warning",
            str(failure),
            f"pip install --force-reinstall {own}, or pip uninstall {own}",
        )


def processor() -> Iterator[Finding]:
    """Yield the CPU with the features kernels are chosen by, its cores, its load."""
    known = environment()
    features = known["cpu_features"]
    slow = bool(features) and not {"avx2", "asimddp"} & set(features)
    overflows = saturates(features)
    advice = (
        "16-bit sums of 8-bit products saturate on this CPU: quantize takes weights of 7 bits here by default "
        "(reduce_range: auto); write reduce_range: true on other machines that make files for it"
    )
    listed = ", ".join(features) or "features not readable on this system"
    yield Finding(
        "cpu", "warning" if slow or overflows else "ok", f"{known['cpu']}: {listed}", advice if overflows else ""
    )
    usable, quota = known["usable_cores"], cpu_quota()
    parts = [f"{usable} usable of {known['cores']}"]
    parts += [f"{count} physical" for count in (physical_cores(),) if count]
    parts += [f"OMP_NUM_THREADS={threads}" for threads in (os.environ.get("OMP_NUM_THREADS"),) if threads]
    throttled = quota is not None and quota < usable
    if throttled:
        parts.append(f"the container may use the time of {quota:g}")
    hint = f"measure and serve with threads: {max(1, int(quota or 1))}; more are stopped in the middle of a call"
    yield Finding("cores", "warning" if throttled else "ok", ", ".join(parts), hint if throttled else "")
    load = known["load_average"]
    if load is not None:
        busy = load > BUSY * usable
        yield Finding(
            "load", "warning" if busy else "ok", f"{load:g}", "measure latency when nothing else runs" if busy else ""
        )


def graphics(said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the GPUs with their driver, and whether torch sees them."""
    devices, answer = gpus()["devices"], said.get("torch", {})
    if not devices and not answer.get("gpus"):
        yield Finding("gpu", "ok", "none: everything runs on the CPU")
    elif "error" in answer or answer.get("gpus"):
        yield Finding("gpu", "ok", "; ".join(devices) or ", ".join(answer["gpus"]))
    elif os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        yield Finding("gpu", "warning", f"{'; '.join(devices)}, hidden", "unset CUDA_VISIBLE_DEVICES to use it")
    else:
        build = f"built for CUDA {answer['cuda']}" if answer.get("cuda") else "built without CUDA"
        hint = "install a torch built for CUDA that the driver knows, or use --device cpu"
        yield Finding("gpu", "warning", f"{'; '.join(devices)}, which torch ({build}) does not see", hint)


def hub() -> Iterator[Finding]:
    """Yield where models of the hub are kept, and whether it is asked at all."""
    place = f"cache {constants.HF_HUB_CACHE}, endpoint {constants.ENDPOINT}"
    if constants.HF_HUB_OFFLINE:
        hint = "only directories and models of the cache can be loaded; unset HF_HUB_OFFLINE to download"
        yield Finding("hub", "warning", f"offline (HF_HUB_OFFLINE), {place}", hint)
    else:
        yield Finding("hub", "ok", place)


def places() -> Iterator[Finding]:
    """Yield whether files can be written where runs, tables, logs, models and temporary files go."""
    wanted = {
        "current directory": (Path.cwd(), "change to a directory of yours, or give -o", "problem"),
        "temporary files": (Path(tempfile.gettempdir()), "set TMPDIR", "problem"),
        "latency tables": (cache(), "set XDG_CACHE_HOME, or latency is measured in every run", "warning"),
        "logs of errors": (state(), "set XDG_STATE_HOME", "warning"),
        "hub cache": (Path(constants.HF_HUB_CACHE), "set HF_HOME, or give models as directories", "warning"),
    }
    status: Any
    for name, (place, hint, status) in wanted.items():
        there = next(parent for parent in (place, *place.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        said = f"{place}, {free / 10**9:.1f} GB free"
        if not os.access(there, os.W_OK):
            yield Finding(name, status, f"{place} cannot be written", hint)
        elif free < ROOM:
            yield Finding(name, "warning", said, hint)
        else:
            yield Finding(name, "ok", said)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
