"""What ``compress inspect`` found, as tables. Takes plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from compressor.verify.section import Section, amount


def inspection_sections(found: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the tables of a checkpoint, of a run directory, or of an ONNX file (``{"onnx": ...}``)."""
    if "architecture" in found:
        macs = found["encoder_macs"]
        rows = [
            ("architecture", f"{found['architecture']} (model type {found['model_type']}, family {found['family']})"),
            ("parameters", f"{found['parameters']:,}"),
            (f"encoder MACs at length {macs['sequence']:.4g}", amount(macs["macs"])),
        ]
        yield Section("Model", ("", ""), rows)
        layers = [(str(layer["layer"]), *(str(layer.get(kind, "")) for kind in KINDS)) for layer in found["layers"]]
        head: tuple[str, ...] = ("layer", *KINDS.values())
        if found.get("kept_layers"):
            head = (*head, "dense layer")
            layers = [(*row, str(layer)) for row, layer in zip(layers, found["kept_layers"], strict=True)]
        yield Section("Layers", head, layers)
    for name, file in (found.get("files") or {}).items():
        yield _file(name, file)
    if "onnx" in found:
        yield _file("ONNX file", found["onnx"])


KINDS = {"heads": "heads", "ffn_neurons": "FFN neurons"}


def _file(name: str, file: Mapping[str, Any]) -> Section:
    operators = ", ".join(f"{operator} {count}" for operator, count in file["operators"].items())
    rows = [
        ("size", f"{file['size_bytes'] / 1e6:.2f} MB, {file['initializer_elements']:,} numbers in initialisers"),
        ("opset", ", ".join(f"{domain} {version}" for domain, version in file["opset"].items())),
        ("inputs", ", ".join(file["inputs"])),
        ("outputs", ", ".join(file["outputs"])),
        ("operators", operators),
    ]
    return Section(name, ("", ""), rows)
