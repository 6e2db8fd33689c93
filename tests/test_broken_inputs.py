"""Broken recipes, checkpoints, data and places: each ends with one clear message, its exit code, and nothing behind."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants

from compressor.cli import main
from compressor.testing import tiny_checkpoint
from tests.plugin.distributions import install
from tests.toys import write_rows

RECIPE = """\
name: toy
model: ./checkpoint
task: {name: text-classification, train: train.csv, validation: validation.csv, max_length: 32}
calibration: {samples: 16, batch_size: 8}
steps:
  - prune: {method: fisher, target: {macs: 0.5}}
  - export: {format: onnx}
  - verify: {sequence: 16, rounds: 3, gates: {macs: 0.5}}
"""
FILES = "name: text-classification, train: train.csv, validation: validation.csv"
FISHER = "method: fisher, target: {macs: 0.5}"
MNLI = "name: glue, subset: mnli, path: glue"
WEIGHTS = "checkpoint/model.safetensors"
CONFIG = "checkpoint/config.json"
PROGRESS = ("load ", "calibrate on ", "note: ")

Change = Callable[[], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which everything is right."""
    place = tmp_path_factory.mktemp("whole")
    tiny_checkpoint(place / "checkpoint", num_hidden_layers=1)
    write_rows(place / "train.csv", 24, seed=0)
    write_rows(place / "validation.csv", 24, seed=1)
    (place / "glue" / "mnli").mkdir(parents=True)
    (place / "glue" / "mnli" / "train.csv").write_text("premise,hypothesis,label\na cat,a dog,2\n")
    (place / "recipe.yaml").write_text(RECIPE)
    return place


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a copy of ``whole``, to break; a machine without a GPU and without a hub."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    return tmp_path


def compress(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def tree(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}


def recipe(old: str, new: str) -> Change:
    """Return what puts ``new`` where the recipe has ``old``."""
    assert RECIPE.count(old) == 1
    return write("recipe.yaml", RECIPE.replace(old, new))


def write(path: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(path).write_bytes(data)


def cut(path: str, size: int) -> Change:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def remove(*names: str) -> Change:
    return lambda: [Path(name).unlink() for name in names]


def config(**changes: Any) -> Change:
    return lambda: Path(CONFIG).write_text(json.dumps(json.loads(Path(CONFIG).read_text()) | changes))


def checkpoint(**shape: Any) -> Change:
    def change() -> None:
        shutil.rmtree("checkpoint")
        tiny_checkpoint(Path("checkpoint"), num_hidden_layers=1, **shape)

    return change


def only_pickled_weights() -> None:
    Path(WEIGHTS).unlink()
    torch.save({}, "checkpoint/pytorch_model.bin")


def scorer(content: Any) -> Change:
    """Return what writes a scorer's file, and a recipe that reads it."""

    def change() -> None:
        if isinstance(content, bytes):
            Path("scorer.bin").write_bytes(content)
        else:
            torch.save(content, "scorer.bin")
        recipe(FISHER, "method: smp, target: {heads: 0.5}, scorer: scorer.bin")()

    return change


@dataclass(frozen=True)
class Broken:
    """What is broken, what the message says (a pattern, matched whole), the exit code, more of the command line."""

    change: Change
    message: str
    code: int = 2
    arguments: tuple[str, ...] = ()


def nothing() -> None:
    """Break nothing: the command line does."""


def setting(value: str, message: str, code: int = 2) -> Broken:
    return Broken(nothing, message, code, ("--set", value))


RECIPES = {
    "wrong type": Broken(
        recipe("samples: 16", "samples: many"),
        r"recipe.yaml:4  calibration.samples: expected an integer >= 1, got 'many'",
    ),
    "unknown key": Broken(
        recipe("calibration:", "callibration:"),
        r"recipe.yaml:4  callibration: unknown option 'callibration'; did you mean 'calibration'\?",
    ),
    "unknown option": Broken(
        recipe("rounds: 3", "runds: 3"), r"recipe.yaml:8  steps.2.verify.runds: unknown .*; did you mean 'rounds'\?"
    ),
    "unknown method": Broken(
        recipe("fisher", "fischer"),
        r"recipe.yaml:6  steps.0.prune.method: unknown method 'fischer'; did you mean 'fisher'\?",
    ),
    "unknown task": Broken(
        recipe("text-classification", "text-clasification"),
        r"recipe.yaml:3  task.*: unknown task 'text-clasification'; did you mean 'text-classification'\?",
    ),
    "unknown step": Broken(recipe("- prune:", "- distil:"), r"recipe.yaml:6  steps.0.distil: unknown step 'distil'.*"),
    "target out of range": Broken(
        recipe("target: {macs: 0.5}", "target: {macs: 1.5}"),
        r"recipe.yaml:6  steps.0.prune.target.macs: expected a number in \(0, 1\], got 1.5",
    ),
    "two amounts": Broken(
        recipe("target: {macs: 0.5}", "target: {macs: 0.5, params: 0.5}"),
        r"recipe.yaml:6  steps.0.prune.target: expected exactly one of .*macs, params.*",
    ),
    "a list as target": Broken(
        recipe("target: {macs: 0.5}", "target: {macs: [0.8, 0.4]}"),
        r"recipe.yaml:6  steps.0.prune.target.macs: expected a number in \(0, 1\], got .*0.8.*",
    ),
    "second verify": Broken(
        recipe("gates: {macs: 0.5}}", "gates: {macs: 0.5}}\n  - verify"),
        r"recipe.yaml:9  steps.3.verify: expected one verify step in a recipe, this is another",
    ),
    "a name that leaves the directory": Broken(
        recipe("name: toy", "name: ../toy"), r"recipe.yaml:1  name: expected letters, digits, .*; got '../toy'"
    ),
    "a subset misspelt": Broken(
        recipe(FILES, MNLI.replace("mnli", "mnl")),
        r"recipe.yaml:3  task.subset: expected one of .*, got 'mnl'; did you mean 'mnli'\?",
    ),
    "verify before export": Broken(
        recipe("  - export: {format: onnx}\n", ""), r"recipe.yaml:7  steps.1.verify: expected after an export step.*"
    ),
    "YAML syntax": Broken(
        recipe("rounds: 3, gates: {macs: 0.5}}", "rounds: 3, gates: {macs: 0.5}"),
        r"recipe.yaml:9  not valid YAML: expected .*",
    ),
    "duplicate key": Broken(
        recipe("calibration:", "name: again\ncalibration:"),
        r"recipe.yaml:4  name: this key was given already in line 1",
    ),
    "missing recipe": Broken(remove("recipe.yaml"), r"recipe.yaml  no such file.*"),
    "empty recipe": Broken(write("recipe.yaml", ""), r"recipe.yaml.*  .*empty.*"),
    "binary recipe": Broken(write("recipe.yaml", b"\x80\x04\x95"), r"recipe.yaml.*  .*UTF-8.*"),
    "model directory missing": Broken(
        recipe("./checkpoint", "./chekpoint"),
        r"recipe.yaml:2  model: no such directory: './chekpoint'; did you mean 'checkpoint'\?; expected .*-m.*",
    ),
    "model is a file": Broken(recipe("./checkpoint", "train.csv"), r"recipe.yaml:2  model: expected a directory.*"),
    "data file missing": Broken(
        remove("train.csv"), r"recipe.yaml:3  task.train: no such file or directory: train.csv.*"
    ),
    "scorer missing": Broken(
        recipe(FISHER, "method: smp, target: {heads: 0.5}, scorer: no.bin"),
        r"recipe.yaml:6  steps.0.prune.scorer: no such file or directory: no.bin",
    ),
    "no share of the heads": Broken(
        recipe(FISHER, "method: heads, target: {heads: 0}"),
        r"recipe.yaml:6  steps.0.prune.target.heads: expected a number in \(0, 1\], got 0",
    ),
    "data file of an unknown kind": Broken(
        recipe("train: train.csv", "train: recipe.yaml"), r"recipe.yaml:3  task.train: expected a file ending in .*"
    ),
    "--set without a value": setting("seed", r"--set seed: expected path=value, got 'seed'"),
    "--set into a number": setting("seed.a=3", r"--set seed.a  .*seed.*"),
    "--set past the end": setting(
        "steps.7.prune.method=fisher", r"--set steps.7.prune.method  steps is a list of 3: .*, got '7'"
    ),
}
"""Found without loading a model: by check, and by apply before torch is imported."""

RUNS = {
    "no config.json": Broken(
        remove(CONFIG), r"checkpoint: expected a checkpoint directory, found no config.json in it"
    ),
    "config.json not JSON": Broken(
        cut(CONFIG, 40), r"checkpoint/config.json: expected a JSON object with a model_type.*"
    ),
    "unknown family": Broken(
        config(model_type="t5"),
        r"checkpoint/config.json: model_type 't5' belongs to no installed family; supported: .*",
    ),
    "a decoder": Broken(
        config(is_decoder=True), r"checkpoint/config.json: is_decoder is true: expected an encoder, .*"
    ),
    "an adapter": Broken(
        lambda: (remove(CONFIG)(), write("checkpoint/adapter_config.json", "{}")()),
        r"checkpoint: expected a checkpoint directory, [^\n]*\n  next: this is an adapter \(PEFT\), .*merge_and_unload.*",
    ),
    "a checkpoint one directory below": Broken(
        lambda: (
            Path("checkpoint").rename("below"),
            Path("checkpoint").mkdir(),
            Path("below").rename("checkpoint/0_T"),
        ),
        r"checkpoint: expected a checkpoint directory, [^\n]*\n  next: checkpoints are below it: checkpoint/0_T",
    ),
    "truncated safetensors": Broken(cut(WEIGHTS, 2000), rf"{WEIGHTS}: the file is truncated or not safetensors: .*"),
    "only pickled weights": Broken(
        only_pickled_weights, rf"{WEIGHTS}: no such file; weights are loaded from safetensors only"
    ),
    "weights of another model": Broken(
        config(hidden_size=64), r"checkpoint: transformers cannot load this checkpoint: its weights do not have the .*"
    ),
    "no classification head": Broken(
        checkpoint(num_labels=None),
        r"checkpoint: the checkpoint has no trained head for BertForSequenceClassification: .* would be random",
    ),
    "classes of another task": Broken(
        recipe(FILES, MNLI),
        r"checkpoint: the task needs 3 outputs of the classification head, the checkpoint's config.json says 2",
    ),
    "a classifier of texts for words": Broken(
        recipe("text-classification", "token-classification"),
        r"checkpoint: wrong task for this checkpoint: the task needs BertForTokenClassification, [^\n]*",
    ),
    "a data set out of reach": Broken(
        recipe(FILES, "name: text-classification, dataset: owner/rows"),
        r"owner/rows: no such directory, and the hub cannot give the data set: [^\n]*\n  next: [^\n]* task.dataset.path .*",
        3,
    ),
    "tokenizer missing": Broken(
        remove("checkpoint/tokenizer.json", "checkpoint/tokenizer_config.json"),
        r"checkpoint: no tokenizer: none of tokenizer.json, .* is there",
    ),
    "tokenizer broken": Broken(cut("checkpoint/tokenizer.json", 100), r"checkpoint: no usable tokenizer: [^\n]*"),
    "tokenizer of a larger model": Broken(
        checkpoint(vocab_size=9), r"./checkpoint: the tokenizer gives token \d+, the model knows tokens 0 to 8"
    ),
    "no text column": Broken(
        write("train.csv", "sentence,label\na cat,1\n"), r"train.csv: no column 'text'; columns: sentence, label"
    ),
    "no label column": Broken(
        write("train.csv", "text,lable\na cat,1\n"),
        r"train.csv: no column 'label'; did you mean 'lable'\?; columns: .*",
    ),
    "no label column in the validation rows": Broken(
        write("validation.csv", "text,klass\na cat,1\n"), r"validation.csv: no column 'label'.*; columns: text, klass"
    ),
    "a scorer of pickled code": Broken(
        scorer(pickle.dumps([1, 2])), r"scorer.bin: expected a scorer: a state dict of torch with 26 tensors [^\n]*"
    ),
    "a scorer of other shapes": Broken(
        scorer({"main.0.weight": torch.zeros(3)}),
        r"scorer.bin: expected the 26 tensors of a scorer; the file lacks '.*'",
    ),
    "empty file": Broken(write("train.csv", ""), r"train.csv: the file is empty"),
    "no rows": Broken(write("train.csv", "text,label\n"), r"train.csv: the file has no rows"),
    "unknown label": Broken(
        write("train.csv", "text,label\na cat,good\n"), r"train.csv: label 'good': expected one of label_0, label_1.*"
    ),
    "label out of range": Broken(write("train.csv", "text,label\na cat,7\n"), r"train.csv: label 7: expected 0 to 1"),
    "label missing": Broken(write("train.csv", "text,label\na cat,1\na dog,\n"), r"train.csv: no label in row 2 of 2"),
    "several labels": Broken(
        lambda: (
            recipe("train: train.csv", "train: train.jsonl")(),
            write("train.jsonl", '{"text": "a cat", "label": [0, 1]}')(),
        ),
        r"train.jsonl: label \[0, 1\]: expected a class id or a class name",
    ),
    "not a parquet file": Broken(
        lambda: (recipe("train: train.csv", "train: train.parquet")(), write("train.parquet", "text")()),
        r"train.parquet: cannot be read as parquet: .*",
    ),
    "longer than the model's positions": Broken(
        recipe("sequence: 16", "sequence: [16, 300]"),
        r"recipe.yaml:8  steps.2.verify.sequence.*: expected at most 160 tokens, .*; got 300",
    ),
    "no such execution provider": setting(
        "steps.2.verify.provider=cuda",
        r"execution provider CUDAExecutionProvider is not available; available: CPUExecutionProvider",
        3,
    ),
    "no CUDA device": Broken(nothing, r"--device cuda: torch sees no CUDA device", 3, ("--device", "cuda")),
    "model directory missing that might be a name of the hub": Broken(
        recipe("./checkpoint", "chekpoint"),
        r"chekpoint: no such directory, and the hub cannot give the model: [^\n]*\n  next: [^\n]*did you mean 'checkpoint'.*",
    ),
    "hub out of reach": Broken(
        recipe("./checkpoint", "owner/model"),
        r"owner/model: no such directory, and the hub cannot give the model: [^\n]*\n  next: [^\n]* -m[ ,].*",
        3,
    ),
    "output directory there": Broken(lambda: Path("out").mkdir(), r"\S+/out: exists already; nothing is overwritten"),
    "output in place of a file": Broken(
        write("out", "mine"), r"\S+/out: exists and has no recipe.lock.yaml; --fresh replaces only .*", 2, ("--fresh",)
    ),
    "output below a file": Broken(nothing, r".*: this directory cannot be made: .*", 2, ("-o", "train.csv/out")),
}
"""Found by apply, before the first stage."""


def assert_one_message(result: Result, broken: Broken) -> None:
    assert result.exit_code == broken.code, result.output
    assert isinstance(result.exception, SystemExit), "an exception came through"
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(PROGRESS)]
    message = "\n".join(lines)
    assert re.fullmatch(rf"error: {broken.message}(\n  next: [^\n]+)?", message), message
    assert "Traceback" not in result.output
    assert result.output.count("error:") == 1


@pytest.mark.parametrize("verb", ["check", "apply"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_broken_recipe_is_refused_with_one_message(name: str, verb: str, here: Path):
    RECIPES[name].change()
    before = tree(here)
    assert_one_message(compress(verb, "recipe.yaml", *RECIPES[name].arguments), RECIPES[name])
    assert tree(here) == before


def test_a_home_directory_is_spelt_out(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(here))
    recipe(FILES, FILES.replace(": train.csv", ": ~/train.csv"))()
    (task,) = [line for line in compress("plan", "recipe.yaml").stdout.splitlines() if line.startswith("  load ")]
    assert f"train='{here}/train.csv'" in task
    assert compress("check", "recipe.yaml", "-m", "~/checkpoint").exit_code == 0


@pytest.mark.parametrize("name", RUNS)
def test_a_broken_input_is_refused_before_the_first_stage(name: str, here: Path):
    RUNS[name].change()
    before = tree(here)
    assert_one_message(compress("apply", "recipe.yaml", "-o", "out", *RUNS[name].arguments), RUNS[name])
    assert tree(here) == before


SEEN = {
    "no config.json": "model",
    "config.json not JSON": "model",
    "an adapter": "model",
    "truncated safetensors": "model",
    "only pickled weights": "model",
    "tokenizer missing": "model",
    "no text column": "task.text",
    "no label column": "task.label",
    "no label column in the validation rows": "task.label",
    "empty file": "task.train",
    "no rows": "task.train",
    "unknown label": "task.label",
    "label out of range": "task.label",
    "label missing": "task.label",
    "several labels": "task.label",
    "not a parquet file": "task.train",
}
"""What check finds in files, too, and the option that it is about."""


@pytest.mark.parametrize("verb", ["check", "plan"])
@pytest.mark.parametrize("name", SEEN)
@pytest.mark.usefixtures("here")
def test_what_is_wrong_with_a_file_is_found_without_running(name: str, verb: str):
    RUNS[name].change()
    result = compress(verb, "recipe.yaml")
    assert result.exit_code == 2
    message = RUNS[name].message.partition("[^")[0].removesuffix(".*")
    line = 2 if SEEN[name] == "model" else 3
    assert re.fullmatch(rf"error: recipe.yaml:{line}  {SEEN[name]}: {message}.*\n", result.stderr), result.stderr


@pytest.mark.usefixtures("here")
def test_mistakes_in_files_and_in_the_recipe_are_reported_together():
    recipe("target: {macs: 0.5}", "target: {mac: 0.5}")()
    write("train.csv", "sentence,label\na cat,7\n")()
    write("validation.csv", "text,lable\na cat,1\n")()
    remove(WEIGHTS, "checkpoint/tokenizer.json")()
    result = compress("check", "recipe.yaml")
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "error",
        "recipe.yaml:2  model",
        "recipe.yaml:2  model",
        "recipe.yaml:3  task.text",
        "recipe.yaml:3  task.label",
        "recipe.yaml:3  task.label",
        "recipe.yaml:6  steps.0.prune.target.mac",
    ]
    assert lines[0] == "error: 6 mistakes"


@pytest.mark.usefixtures("here")
def test_rows_that_no_step_reads_are_not_looked_at():
    write("validation.csv", "text,lable\na cat,1\n")()
    assert compress("check", "recipe.yaml").exit_code == 2
    assert (
        compress("check", "recipe.yaml", "--set", "steps=[prune: {method: fisher, target: {macs: 0.5}}]").exit_code == 0
    )


@pytest.mark.usefixtures("here")
def test_a_head_that_is_going_to_be_trained_decides_about_no_label():
    write("train.csv", "text,label\na cat,good\n")()
    options = ("--set", "task.labels=[good, bad]", "--set", "task.validation=train.csv")
    assert compress("check", "recipe.yaml", *options).exit_code == 0
    assert compress("check", "recipe.yaml", *options, "--set", "task.labels=[well, bad]").exit_code == 2
    only_training = ("--set", "steps=[train: {max_steps: 1}]", "--set", "task.validation=train.csv")
    assert compress("check", "recipe.yaml", *only_training).exit_code == 0


@pytest.mark.usefixtures("here")
def test_a_first_step_that_cannot_be_used_may_train_the_head():
    write("train.csv", "text,label\na cat,2\n")()
    assert "label 2" in compress("check", "recipe.yaml").stderr
    recipe("steps:\n", "steps:\n  - train: {epocs: 1}\n")()
    done = compress("check", "recipe.yaml")
    assert (done.exit_code, "epocs" in done.stderr, "label 2" in done.stderr) == (2, True, False)


@pytest.mark.usefixtures("here")
def test_the_home_of_nobody_is_no_directory():
    for verb in ("check", "plan", "apply"):
        done = compress(verb, "recipe.yaml", "-m", "~nobody-is-called-so/checkpoint")
        assert (done.exit_code, "no such directory: '~nobody-is" in done.stderr) == (2, True)


@pytest.mark.usefixtures("here")
def test_plan_says_how_many_samples_there_are_where_more_are_asked_for():
    asked = ("plan", "recipe.yaml", "--set", "calibration.samples=25")
    (line,) = [line for line in compress(*asked).stdout.splitlines() if line.startswith("  calibrate ")]
    assert "24 samples, all of the train split (25 are asked for), batches of 8" in line
    assert json.loads(compress(*asked, "--json").stdout)["train_samples"] == 24
    assert "  16 samples of the train split" in compress("plan", "recipe.yaml").stdout


@pytest.mark.usefixtures("here")
def test_files_are_looked_at_without_the_libraries_that_a_run_needs():
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "datasets"}
    program = (
        "import sys\nfrom compressor.cli import main\n"
        "try: main(['check', 'recipe.yaml'])\nexcept SystemExit as end: assert end.code == 2, end.code\n"
        f"found = {heavy} & set(sys.modules)\nassert not found, found\n"
    )
    write("train.csv", "sentence,label\na cat,7\n")()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "task.label: train.csv: label 7" in done.stderr


BREAKING = """
from compressor.plugin import PruningMethod, hookimpl

class Breaking(PruningMethod):
    name = "breaking"

    def prune(self, session):
        raise ZeroDivisionError("a bug in the plugin")

@hookimpl
def compressor_components():
    yield Breaking
"""


def test_a_plugin_that_breaks_is_named_and_leaves_nothing_that_looks_finished(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    install(here / "site", "unlucky", {"unlucky": "breaking_plugin"}, modules={"breaking_plugin": BREAKING})
    monkeypatch.syspath_prepend(here / "site")
    result = compress("apply", "recipe.yaml", "-o", "out", "--set", "steps.0.prune={method: breaking}")
    assert result.exit_code == 4
    assert "error: step 01-prune: method 'breaking' (breaking_plugin) failed: ZeroDivisionError: a bug" in result.stderr
    assert "Traceback" not in result.output
    (unfinished,) = here.glob("out*")
    assert unfinished.name.startswith("out.partial-")
    assert not list(unfinished.rglob("stage.json"))
    assert "Traceback" in (unfinished / "logs" / "run.log").read_text()


RETURNING = """
import torch
from compressor.errors import CompressorError
from compressor.model.masks import Masks
from compressor.plugin import Pruned, PruningMethod, hookimpl

class Returning(PruningMethod):
    name = "returning"
    what: str

    def prune(self, session):
        masks = session.masks
        (first, mask), *_ = masks.keep.items()
        weight = dict(session.model.named_parameters())["classifier.bias"]
        match self.what:
            case "all":
                return Pruned(masks)
            case "nothing":
                return None
            case "plain masks":
                return Pruned(masks.keep)
            case "unknown mask":
                return Pruned(Masks({"nowhere": mask}))
            case "long mask":
                return Pruned(Masks({first: mask.repeat(2)}))
            case "numbers as mask":
                return Pruned(Masks({first: mask.float()}))
            case "unknown weight":
                return Pruned(masks, {"nowhere": weight})
            case "long weight":
                return Pruned(masks, {"classifier.bias": weight.repeat(2)})
            case "weight not finite":
                return Pruned(masks, {"classifier.bias": weight.detach() * float("nan")})
            case "no memory":
                return torch.empty(2**55)
            case "no solution":
                raise CompressorError("not finite")

@hookimpl
def compressor_components():
    yield Returning
"""


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("nothing", 4, "prune returned NoneType; expected Pruned(masks=Masks)"),
        ("plain masks", 4, "prune returned masks of type dict; expected Pruned(masks=Masks)"),
        ("unknown mask", 4, "mask 'nowhere': the model has no such group"),
        ("long mask", 4, "expected shape (4,), got (8,)"),
        ("numbers as mask", 4, "failed: TypeError: mask "),
        ("unknown weight", 4, "weight 'nowhere': the model has no such parameter"),
        ("long weight", 4, "weight 'classifier.bias': expected shape (2,) of the unpruned model, got (4,)"),
        ("weight not finite", 4, "removing the masked units changed the model's output by nan"),
        ("no solution", 4, "(returning_plugin): not finite"),
        ("no memory", 3, "error: "),
    ],
)
def test_what_a_method_must_not_return_is_its_error_and_lack_of_memory_is_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int, message: str
):
    install(here / "site", "unlucky", {"unlucky": "returning_plugin"}, modules={"returning_plugin": RETURNING})
    monkeypatch.syspath_prepend(here / "site")
    step = f"steps.0.prune={{method: returning, what: {what}}}"
    result = compress("apply", "recipe.yaml", "-o", "out", "--set", step)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert ("error: step 01-prune: method 'returning' (returning_plugin)" in result.stderr) == (code == 4)
    assert ("  traceback: " in result.stderr) == (code == 4)
    assert not list(here.rglob("stage.json"))


@pytest.mark.parametrize(("method", "place"), [("groups", "loading the model"), ("after_shrink", "step 01-prune")])
def test_a_family_that_breaks_is_named(here: Path, monkeypatch: pytest.MonkeyPatch, method: str, place: str):
    from compressor_plugins.families.bert import Bert

    def breaking(_: Any, __: Any) -> None:
        raise ZeroDivisionError("a bug in the family")

    install(here / "site", "lucky", {"lucky": "returning_plugin"}, modules={"returning_plugin": RETURNING})
    monkeypatch.syspath_prepend(here / "site")
    monkeypatch.setattr(Bert, method, breaking)
    step = "steps.0.prune={method: returning, what: all}"
    result = compress("apply", "recipe.yaml", "-o", "out", "--set", step)
    assert result.exit_code == 4
    assert f"error: {place}: family 'bert' (compressor_plugins.families.bert) failed: Zero" in result.stderr


@pytest.mark.parametrize("command", [("apply", "recipe.yaml", "-o", "out"), ("inspect", "checkpoint")])
def test_an_unknown_family_names_the_plugins_that_failed(
    here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
):
    install(here / "site", "unlucky", {"t5s": "broken_family"}, modules={"broken_family": "import nothing_like_it"})
    monkeypatch.syspath_prepend(here / "site")
    config(model_type="t5")()
    result = compress(*command)
    assert result.exit_code == 4
    assert "error: checkpoint/config.json: model_type 't5' belongs to no installed family" in result.stderr
    assert "  plugin 't5s' of unlucky 1.0 (broken_family) failed to load: ModuleNotFoundError" in result.stderr


def test_a_task_that_breaks_is_named(here: Path, monkeypatch: pytest.MonkeyPatch):
    from compressor_plugins import tables

    def read_rows(_: Path) -> Any:
        raise ZeroDivisionError("a bug in the task")

    monkeypatch.setattr(tables, "read_rows", read_rows)
    before = tree(here)
    result = compress("apply", "recipe.yaml", "-o", "out")
    assert result.exit_code == 4
    assert "error: loading the train rows: task 'text-classification' (compressor_plugins." in result.stderr
    assert tree(here) == before
