"""A recipe that quantises: what is left behind, what is verified, what is recommended, and what fails."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner
from onnx import numpy_helper

import compressor
from compressor.cli import main
from compressor.errors import InputError, RecipeError
from compressor.model.runtime import SessionOptions, open_session
from compressor.recipe.lock import read_lock
from compressor.recipe.options import Verification
from compressor.run import verification
from compressor.run.again import bench_files, verify_again
from compressor.run.pipeline import Finished
from compressor.verify.evaluate import Quality
from compressor.verify.statistics import Interval
from compressor_plugins.quantizers import _int8, _onnxruntime, int8
from tests.run.conftest import run_recipe
from tests.toys import toy_recipe

VERIFY = {"sequence": 16, "rounds": 3, "gates": {"metric_drop": 1.0, "macs": 0.5}}
STEPS: list[dict[str, Any]] = [
    {"prune": {"method": "fisher", "target": {"macs": 0.5}}},
    {"export": {"fused": True}},
    {"quantize": "int8-dynamic"},
    {"verify": VERIFY},
]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("int8")
    return run_recipe(toy_recipe(place, steps=STEPS), place / "out")


def test_the_int8_file_lies_beside_the_portable_one(quantised: Finished):
    root = quantised.directory
    assert {path.name for path in root.glob("*.onnx")} == {"model.onnx", "model_ort.onnx", "model_int8.onnx"}
    assert (root / "stages/02-export/dense_ort.onnx").is_file()
    assert (root / "stages/03-quantize/dense_int8.onnx").is_file()
    assert not (root / "stages/03-quantize/model_int8.onnx").exists()  # it is at the root


def test_every_file_is_measured_beside_the_free_baselines(quantised: Finished):
    report = quantised.report
    models = [one["model"] for one in report["variants"]]
    assert models == ["dense", "dense fused", "dense int8", "compressed", "compressed fused", "compressed int8"]
    for one in report["variants"]:
        assert (one["quality"] is None) == (one["model"] == "dense" or "fused" in one["model"])
    assert {(row["model"], row["slow_fusion"]) for row in report["latency"]} == {
        (name, slow) for name in models for slow in (False, True)
    }
    for row in report["latency"]:
        assert set(row["against"]) == {"best dense", "best int8 alone", "dense, default options"}
        assert row["against"]["best int8 alone"]["model"] == "dense int8"
        assert row["against"]["dense, default options"]["slow_fusion"]
    assert report["quality"]["model"] == "compressed int8"
    assert report["model"]["bytes"]["compressed"] == (quantised.directory / "model_int8.onnx").stat().st_size


def test_the_best_dense_configuration_is_the_fastest_one(quantised: Finished):
    rows = [row for row in quantised.report["latency"] if row["model"] in {"dense", "dense fused"}]
    best = min(row["against"]["best dense"]["ratio"]["value"] for row in rows)
    assert best == 1.0


def test_the_recommended_session_gives_the_files_answers(quantised: Finished):
    config = json.loads((quantised.directory / "ort_config.json").read_text())
    assert config == quantised.report["serve"]
    batch = {"input_ids": np.array([[2, 7, 9, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    batch["token_type_ids"] = np.zeros_like(batch["input_ids"])

    def answer(session: Any) -> np.ndarray:
        known = {entry.name for entry in session.get_inputs()}
        found: np.ndarray = session.run(None, {name: array for name, array in batch.items() if name in known})[0]
        return found

    served = compressor.ort_session(quantised.directory, threads=1)
    on = "optimization.disable_specified_optimizers" not in config["session_config"]
    same = open_session(quantised.directory / config["file"], SessionOptions(slow_fusion=on))
    assert np.array_equal(answer(served), answer(same))
    int8 = compressor.ort_session(quantised.directory, file="model_int8.onnx")
    fp32 = compressor.ort_session(quantised.directory, file="model.onnx")
    assert not np.array_equal(answer(int8), answer(fp32))


def test_verifying_again_measures_the_same_files(quantised: Finished):
    again = verify_again(quantised.directory, {"rounds": 3})
    assert again["variants"] == quantised.report["variants"]
    assert again["quality"] == quantised.report["quality"]


def test_bench_compares_with_the_dense_model(quantised: Finished):
    found = bench_files([quantised.directory], Verification(sequence=16, rounds=3))
    assert {row["model"] for row in found["latency"]} == {"dense", quantised.directory.name}


def test_a_resumed_run_takes_the_int8_files_from_their_stage(quantised: Finished, monkeypatch: pytest.MonkeyPatch):
    """The step verify fails once; the second attempt neither exports nor quantises."""
    place = quantised.directory.parent
    monkeypatch.setattr("compressor.run.steps.verify", lambda *_, **__: (_ for _ in ()).throw(InputError("no")))
    with pytest.raises(InputError, match="no"):
        run_recipe(place / "recipe.yaml", place / "again")
    monkeypatch.undo()
    monkeypatch.setattr(_int8, "quantized", None)
    done = run_recipe(place / "recipe.yaml", place / "again")
    for name in ("model.onnx", "model_int8.onnx"):
        assert (done.directory / name).read_bytes() == (quantised.directory / name).read_bytes()


def ruined(path: Path) -> None:
    """Turn the last weights of a file around: the classes change places, but for the biases."""
    model = onnx.load(str(path))
    last = [node.input[1] for node in model.graph.node if node.op_type == "MatMulInteger"][-1]
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == last)
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), last))
    onnx.save(model, str(path))


def test_a_planted_loss_of_accuracy_fails_its_gate_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The labels are the dense model's own answers, so that any other answer is wrong."""
    gates = {**VERIFY, "gates": {"metric_drop": 0.2}}
    recipe = toy_recipe(tmp_path, steps=[{"export": {}}, {"quantize": "int8-dynamic"}, {"verify": gates}])
    answers_of_dense(tmp_path)
    strip = _onnxruntime._strip

    def plant(path: Path) -> None:
        strip(path)
        ruined(path)

    monkeypatch.setattr(_onnxruntime, "_strip", plant)
    found = CliRunner().invoke(main, ["apply", str(recipe), "-o", str(tmp_path / "out"), "--json", "--device", "cpu"])
    assert found.exit_code == 1, found.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(gate["name"], gate["verdict"]) for gate in report["gates"]] == [("metric_drop", "fail")]
    assert not report["passed"]
    assert report["serve"]["file"] != "model_int8.onnx"
    assert "model_int8.onnx is not served: it loses" in " ".join(report["serve"]["why"])
    assert (tmp_path / "out" / "model_int8.onnx").is_file()  # written, marked as failed


def test_a_fused_file_is_not_served_where_the_portable_one_loses_too_much():
    quality = Quality(9, "accuracy", {"accuracy": 0.9}, {"accuracy": 0.8}, Interval(-0.1, -0.2, 0.0, 0.95))
    models = ("dense", "dense fused", "compressed", "compressed fused", "compressed int8")
    found = verification._rejected({"compressed": quality}, models, limit=0.05)
    assert sorted(found) == ["compressed", "compressed fused"]
    assert verification._rejected({"compressed": quality}, models, limit=0.1) == {}
    assert verification._rejected({"compressed": quality}, models, limit=None) == {}


def answers_of_dense(place: Path) -> None:
    from transformers import AutoTokenizer

    model = compressor.load(place / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(place / "checkpoint")
    for name in ("train.csv", "validation.csv"):
        with (place / name).open(newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        labels = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits.argmax(1)
        with (place / name).open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *zip(texts, labels.tolist(), strict=True)])


def test_what_auto_was_is_locked_and_a_replay_on_another_cpu_makes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The recipe itself is another one there, which a replay of it says, naming the option and the CPU."""
    recipe = toy_recipe(tmp_path, steps=[{"export": {}}, {"quantize": {"method": "int8-dynamic"}}])
    said: list[str] = []
    monkeypatch.setattr(int8, "cpu_features", lambda: ["avx2"])
    one = run_recipe(recipe, tmp_path / "one", announce=said.append)
    path = one.directory / "recipe.lock.yaml"
    lock = yaml.safe_load(path.read_text())
    assert lock["recipe"]["steps"][1]["quantize"]["reduce_range"] is True
    made = one.report["steps"][1]["metrics"]["artifacts"]
    assert [made[name]["details"]["reduce_range"] for name in ("dense_int8", "model_int8")] == [True, True]
    assert len([line for line in said if "weights in 7 bits (reduce_range: true)" in line]) == 1
    monkeypatch.setattr(int8, "cpu_features", lambda: ["avx2", "avx512_vnni"])
    again = run_recipe(path, tmp_path / "again", locked=read_lock(path))
    assert again.reproduced
    assert {"model.onnx", "model_int8.onnx"} <= again.report["replay"]["outputs"].keys()
    with pytest.raises(InputError, match=r"recipe\.steps\.1\.quantize\.reduce_range: locked true, present false"):
        run_recipe(recipe, tmp_path / "other", locked=read_lock(path))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("quantize", "export"), r"steps\.0\.quantize: expected after an export step"),
        (("export", "verify", "quantize"), r"steps\.2\.quantize: expected before verify"),
        (("export", "quantize", "quantize"), r"steps\.2\.quantize: expected one quantize step"),
    ],
)
def test_quantising_has_its_place_between_export_and_verify(tmp_path: Path, order: tuple[str, ...], message: str):
    steps = [{verb: {"method": "int8-dynamic"} if verb == "quantize" else {}} for verb in order]
    with pytest.raises(RecipeError, match=message):
        run_recipe(toy_recipe(tmp_path, steps=steps), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"file": "model.onnx"}', "is damaged"),
        ('{"file": "model.onnx", "provider": "tpu", "session_config": {}}', "expected file, provider"),
        ('{"file": "gone.onnx", "provider": "cpu", "session_config": {}}', r"gone\.onnx: no such ONNX file"),
    ],
)
def test_a_damaged_configuration_is_one_clear_error(tmp_path: Path, content: str, message: str):
    (tmp_path / "ort_config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        compressor.ort_session(tmp_path)


def test_a_directory_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such directory"):
        compressor.ort_session(tmp_path / "nowhere")
