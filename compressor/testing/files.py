"""Conformance of exporters and quantizers."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from compressor.model import surgery
from compressor.model.artifact import Artifact
from compressor.model.imprint import Imprint
from compressor.model.runtime import open_session
from compressor.plugin import Exporter, QuantizationData, Quantizer, Registry
from compressor.run.load import families
from compressor.testing.declarations import assert_declaration_conforms, asserted
from compressor.testing.equalities import assert_onnx_equals_torch
from compressor.testing.tiny import example_masks, tiny_batch, tiny_model
from compressor.verify.inference import call

INPUTS, OUTPUTS = ("input_ids", "attention_mask"), ("logits",)
ALIKE = 0.5
"""Least correlation of a quantised file's outputs with the source's: tiny random models lose much in int8."""


def assert_exporter_conforms(exporter: Exporter, model_type: str = "bert") -> None:
    """Assert that an exporter keeps its contract: a plugin author's one-line test.

    A pruned model with ragged and emptied layers is exported and stays as it was; the file lies where it was asked for,
    and nothing else does; the artifact says what it is; the same model gives the same bytes; and an ONNX file gives
    torch's outputs at other batch sizes and lengths. The same holds of the fused file, where there is one.

    Args:
        exporter: with its options.
        model_type: of the model that is exported.
    """
    assert_declaration_conforms(exporter)
    family, model = families(Registry.load())[model_type], tiny_model(model_type, num_hidden_layers=3)
    model = surgery.shrink(model, family, example_masks(family.groups(model))["ragged"]).requires_grad_(False)
    before = Imprint.of(model)
    names = {"input_names": INPUTS, "output_names": OUTPUTS}
    with TemporaryDirectory() as directory, asserted(exporter):
        place = Path(directory)
        one = exporter.export(model, place / "one.onnx", **names)
        other = exporter.export(model, place / "other.onnx", **names)
        fused = exporter.export_fused(model, place / "fused.onnx", **names)
        assert not before.changes(model), f"the model: {'; '.join(before.changes(model))}"
        assert one.path.read_bytes() == other.path.read_bytes(), "the same model gave other bytes"
        for artifact, name in ((one, "one.onnx"), (fused, "fused.onnx")):
            if isinstance(artifact, Artifact):
                _assert_described(artifact, place / name)
                for lengths in ((5, 2, 9), (31,)) if artifact.format == "onnx" else ():
                    assert_onnx_equals_torch(artifact.path, model, tiny_batch(lengths=lengths, labels=False))
        expected = {"one.onnx", "other.onnx"} | ({"fused.onnx"} if isinstance(fused, Artifact) else set())
        assert {path.name for path in place.iterdir()} == expected, "the exporter left other files behind"


def _assert_described(artifact: Artifact, path: Path) -> None:
    assert artifact.path == path, f"expected the file at {path}; got {artifact.path}"
    assert artifact.size_bytes == path.stat().st_size, "size_bytes: expected the file's size"
    assert artifact.input_names == INPUTS, f"input_names: expected {INPUTS}; got {artifact.input_names}"
    assert artifact.output_names == OUTPUTS, f"output_names: expected {OUTPUTS}; got {artifact.output_names}"


def assert_quantizer_conforms(quantizer: Quantizer, artifact: Artifact | None = None) -> None:
    """Assert that a quantizer keeps its contract: a plugin author's one-line test.

    The source file stays as it was; the new one lies where it was asked for, takes and gives the same names, gives
    outputs like the source's, and is the same byte for byte when it is made again.

    Args:
        quantizer: with its options.
        artifact: a portable float32 file of a tiny classifier; default: what the installed exporter ``onnx`` makes.
    """
    assert_declaration_conforms(quantizer)
    with TemporaryDirectory() as directory, asserted(quantizer):
        place = Path(directory)
        source = artifact or _exported(place / "model.onnx")
        before = source.path.read_bytes()
        quantizer.check()
        data = QuantizationData(batches=_batches, drop=lambda *_, **__: 0.0)
        made = [quantizer.quantize(source, data, place / f"{name}.onnx") for name in ("one", "other")]
        assert source.path.read_bytes() == before, "the quantizer changed the file that it was given"
        assert made[0].path == place / "one.onnx", f"expected the file at {place / 'one.onnx'}; got {made[0].path}"
        assert made[0].path.read_bytes() == made[1].path.read_bytes(), "the same file gave other bytes"
        assert made[0].size_bytes == made[0].path.stat().st_size, "size_bytes: expected the file's size"
        sessions = [open_session(each.path) for each in (source, made[0])]
        names = [{put.name for put in session.get_inputs()} for session in sessions]
        assert names[0] == names[1], f"expected the inputs {sorted(names[0])}; got {sorted(names[1])}"
        expected, found = (np.concatenate([call(session, dict(batch)) for batch in _batches()]) for session in sessions)
        alike = float(np.corrcoef(expected.ravel(), found.ravel())[0, 1])
        assert alike >= ALIKE, f"expected outputs like the source's; their correlation is {alike:.2f}"


def _exported(path: Path) -> Artifact:
    exporter = cast("Exporter", Registry.load().get("exporter", "onnx")())
    return exporter.export(tiny_model(), path, input_names=INPUTS, output_names=OUTPUTS)


def _batches() -> Iterator[Mapping[str, np.ndarray]]:
    for seed in range(3):
        batch = tiny_batch(lengths=(9, 31, 4), labels=False, seed=seed)
        yield {name: batch[name].numpy() for name in INPUTS}
