from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertForMaskedLM
from transformers.utils import logging as chatter

from compressor.errors import InputError, SetupError
from compressor.model import checkpoint
from compressor.model.heads import head_of
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output
from compressor.model.surgery import shrink
from compressor.plugin.components import Head
from compressor.testing import example_masks, tiny_batch, tiny_checkpoint, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

FAMILIES: dict[str, Any] = {
    model_type: family for family in (Bert(), DistilBert()) for model_type in family.model_types
}
CLASSIFIER: Head = "sequence-classification"
ENCODER: Head = "feature-extraction"
ANSWERS: Head = "question-answering"


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return raw_output(model, tiny_batch(labels=False))


def pruned(model_type: str = "bert", **options: Any) -> nn.Module:
    model = tiny_model(model_type, **options)
    family = FAMILIES[model_type]
    return shrink(model, family, example_masks(family.groups(model))["ragged"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "source")


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_pruned_model_comes_back_exactly(tmp_path: Path, model_type: str) -> None:
    model = pruned(model_type)
    checkpoint.save(model, tmp_path)
    loaded = checkpoint.load(tmp_path, FAMILIES)
    assert torch.equal(output(loaded), output(model))
    assert type(loaded) is type(model)
    assert not any(module.training for module in loaded.modules())
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    checkpoint.save(loaded, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_config_says_what_each_layer_kept(tmp_path: Path) -> None:
    keep = {
        "encoder.layer.0.attention": torch.tensor([False, True, False, True]),
        "encoder.layer.2.ffn": torch.arange(48) < 2,
    }
    checkpoint.save(shrink(tiny_model(), Bert(), Masks(keep)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    everything = list(range(48))
    assert config["pruned_shapes"] == {
        "kept_heads": [[1, 3], [0, 1, 2, 3], [0, 1, 2, 3]],
        "heads": [2, 4, 4],
        "kept_ffn_neurons": [everything, everything, [0, 1]],
        "ffn_neurons": [48, 48, 2],
    }
    assert config["num_attention_heads"] == 4
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert not config.get("pruned_heads")


def test_a_loaded_model_can_be_pruned_further(tmp_path: Path) -> None:
    checkpoint.save(shrink(tiny_model(), Bert(), Masks({"encoder.layer.0.ffn": torch.arange(48) >= 40})), tmp_path)
    loaded = checkpoint.load(tmp_path, FAMILIES)
    config: Any = shrink(loaded, Bert(), Masks({"encoder.layer.0.ffn": torch.arange(8) == 3})).config
    assert config.pruned_shapes["kept_ffn_neurons"][0] == [43]


def test_a_loaded_model_gives_every_hidden_state(tmp_path: Path) -> None:
    checkpoint.save(pruned(), tmp_path)
    loaded = checkpoint.load(tmp_path, FAMILIES)
    assert len(loaded(**tiny_batch(labels=False), output_hidden_states=True).hidden_states) == 4


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.filterwarnings("ignore")  # what transformers says besides is its own affair
def test_plain_transformers_refuses_a_pruned_directory(tmp_path: Path, auto: Any) -> None:
    checkpoint.save(pruned(), tmp_path)
    with pytest.raises((RuntimeError, ValueError)):
        auto.from_pretrained(str(tmp_path))


def test_tokenizer_files_are_copied_but_for_a_class_that_only_transformers_5_knows(
    source: Path, tmp_path: Path
) -> None:
    checkpoint.save(pruned(), tmp_path / "out", source)
    copied = {path.name for path in (tmp_path / "out").iterdir()} - {"config.json", "model.safetensors"}
    assert {"tokenizer.json", "tokenizer_config.json"} <= copied
    for name in copied:
        text = (source / name).read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"')
        assert (tmp_path / "out" / name).read_text() == text


def test_load_gives_a_dense_checkpoint_as_it_is(source: Path) -> None:
    assert torch.equal(output(checkpoint.load(source, FAMILIES)), output(tiny_model()))


def test_load_pretrained_takes_up_a_pruned_checkpoint(tmp_path: Path) -> None:
    model = pruned("distilbert")
    checkpoint.save(model, tmp_path)
    again = checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=CLASSIFIER, num_labels=2)
    assert torch.equal(output(again), output(model))


def test_half_precision_weights_load_as_float32(source: Path) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    edit_config(source, dtype="float16")
    model = checkpoint.load_pretrained(str(source), FAMILIES, head=CLASSIFIER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_classifier_gives_its_bare_encoder(tmp_path: Path, model_type: str) -> None:
    classifier: Any = tiny_model(model_type)
    classifier.save_pretrained(tmp_path)
    encoder = checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=ENCODER)
    assert torch.equal(output(encoder), output(classifier.base_model))


def test_a_missing_pooler_becomes_zeros_not_noise(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "roberta")  # its classifier has no pooler, its bare encoder has one
    first, second = (checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=ENCODER) for _ in range(2))
    assert checkpoint.fingerprint(first) == checkpoint.fingerprint(second)
    assert not first.get_parameter("pooler.dense.weight").any()


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    model: Any = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(output(checkpoint.load(tmp_path, FAMILIES)), output(model))
    before = checkpoint.fingerprint(tmp_path)
    next(iter(tmp_path.glob("*-00002-of-*.safetensors"))).unlink()
    with pytest.raises(InputError, match=r"00002-of-.*no such file"):
        checkpoint.load(tmp_path, FAMILIES)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert checkpoint.fingerprint(tmp_path) == before


def test_fingerprint_is_the_sha256_of_the_file(source: Path) -> None:
    expected = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert checkpoint.fingerprint(source) == expected


def test_fingerprint_of_a_model_sees_every_weight() -> None:
    model, other = tiny_model(), tiny_model()
    assert checkpoint.fingerprint(model) == checkpoint.fingerprint(other)
    with torch.no_grad():
        other.get_parameter("classifier.bias")[1] += 1e-6
    assert checkpoint.fingerprint(model) != checkpoint.fingerprint(other)


def test_loading_and_saving_say_nothing_and_leave_no_settings_changed(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    verbosity, bars, filters = chatter.get_verbosity(), chatter.is_progress_bar_enabled(), warnings.filters[:]
    model = checkpoint.load_pretrained(str(source), FAMILIES, head=ENCODER)
    checkpoint.save(model, tmp_path / "out")
    assert tuple(capfd.readouterr()) == ("", "")
    assert (chatter.get_verbosity(), chatter.is_progress_bar_enabled()) == (verbosity, bars)
    assert warnings.filters == filters


def cut_in_half(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def only_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


BROKEN: dict[str, tuple[Any, str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "found no config.json in it"),
    "broken config": (lambda d: (d / "config.json").write_text('{"model_type": '), "expected a JSON object"),
    "no model type": (lambda d: (d / "config.json").write_text("[]"), "expected a JSON object with a model_type"),
    "unknown family": (lambda d: edit_config(d, model_type="brt"), "model_type 'brt'.*did you mean 'bert'"),
    "other family": (
        lambda d: edit_config(d, model_type="gpt2"),
        "supported: bert, .*distilbert, electra, .*roberta, xlm",
    ),
    "truncated": (cut_in_half, "truncated or not safetensors"),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "truncated or not safetensors"),
    "pickle only": (only_pickle, "safetensors only.*\n.*convert pytorch_model.bin"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no such file"),
    "broken index": (lambda d: (d / "model.safetensors.index.json").write_text("{}"), "with a weight_map"),
    "wrong sizes": (lambda d: edit_config(d, hidden_size=64), "cannot load this checkpoint"),
    "wrong type": (lambda d: edit_config(d, hidden_size="wide"), "transformers cannot"),
    "more layers": (lambda d: edit_config(d, num_hidden_layers=4), "lacks weights.*and 12 more"),
    "bad shapes": (lambda d: edit_config(d, pruned_shapes={"heads": [4, 4]}), "no count for layer"),
    "too many heads": (
        lambda d: edit_config(d, pruned_shapes={"heads": [4, 5, 4], "ffn_neurons": [48] * 3}),
        r"heads\[1\]: expected 0 to 4, got 5",
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_checkpoint_is_one_clear_input_error(source: Path, damage: str) -> None:
    change, said = BROKEN[damage]
    change(source)
    with pytest.raises(InputError, match=f"(?s){said}") as raised:
        checkpoint.load_pretrained(str(source), FAMILIES, head=CLASSIFIER)
    assert raised.value.exit_code == 2
    assert "ignore_mismatched_sizes" not in raised.value.message


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_checkpoint_without_a_head_is_refused_for_classification(tmp_path: Path, model_type: str) -> None:
    tiny_checkpoint(tmp_path, model_type, num_labels=None)
    with pytest.raises(InputError, match=r"no trained head .*classifier.*would be random"):
        checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=CLASSIFIER)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_checkpoint_without_a_head_gets_a_new_one_by_the_seed_where_it_will_be_trained(
    tmp_path: Path, model_type: str
) -> None:
    tiny_checkpoint(tmp_path, model_type, num_labels=None)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=CLASSIFIER, num_labels=3, new_head=True))
    batch = tiny_batch(labels=False)
    with torch.no_grad():
        one, again, other = (raw_output(model, batch) for model in made)
    assert one.shape == (len(batch["input_ids"]), 3)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_new_head_of_a_language_model_without_pooler_has_one(tmp_path: Path) -> None:
    model: Any = BertForMaskedLM(tiny_model("bert").config)
    model.save_pretrained(tmp_path)
    made = checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=CLASSIFIER, num_labels=2, new_head=True)
    assert made.get_parameter("bert.pooler.dense.weight").any()


def test_a_bare_encoder_gets_nothing_new(tmp_path: Path) -> None:
    BertForMaskedLM(tiny_model("bert").config).save_pretrained(tmp_path)
    edit_config(tmp_path, num_hidden_layers=4)
    with pytest.raises(InputError, match="lacks weights"):
        checkpoint.load_pretrained(str(tmp_path), FAMILIES, head=ENCODER, new_head=True)


def test_a_trained_head_of_other_classes_is_not_replaced(source: Path) -> None:
    with pytest.raises(InputError, match="the task needs 3 outputs"):
        checkpoint.load_pretrained(str(source), FAMILIES, head=CLASSIFIER, num_labels=3, new_head=True)


def test_a_head_of_another_task_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match=r"needs 3 outputs .* says 2"):
        checkpoint.load_pretrained(str(source), FAMILIES, head=CLASSIFIER, num_labels=3)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_question_answering_model_comes_back_pruned_or_not(tmp_path: Path, model_type: str) -> None:
    model = tiny_model(model_type, head=ANSWERS)
    checkpoint.save(model, tmp_path / "dense")
    again = checkpoint.load_pretrained(str(tmp_path / "dense"), FAMILIES, head=ANSWERS, num_labels=2)
    assert torch.equal(output(again), output(model))
    assert output(model).shape == (4, 12, 2)
    smaller = pruned(model_type, head=ANSWERS)
    checkpoint.save(smaller, tmp_path / "pruned")
    assert torch.equal(output(checkpoint.load(tmp_path / "pruned", FAMILIES)), output(smaller))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_classifier_is_refused_for_question_answering(tmp_path: Path, model_type: str) -> None:
    tiny_checkpoint(tmp_path / "two", model_type)
    with pytest.raises(
        InputError, match=r"wrong task for this checkpoint: the task needs \w+ForQuestionAnswering, .* says"
    ):
        checkpoint.load_pretrained(str(tmp_path / "two"), FAMILIES, head=ANSWERS, num_labels=2)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_classifier_of_texts_is_refused_for_words_though_its_weights_would_fit(
    tmp_path: Path, model_type: str
) -> None:
    tiny_checkpoint(tmp_path, model_type)
    with pytest.raises(InputError, match=r"needs .*ForTokenClassification, .* fine-tuned for sequence classification"):
        checkpoint.load_pretrained(str(tmp_path), FAMILIES, head="token-classification", num_labels=2)
    edit_config(tmp_path, architectures=None)
    with pytest.raises(InputError, match=r"needs 3 outputs of the token classification head, .* says 2"):
        checkpoint.load_pretrained(str(tmp_path), FAMILIES, head="token-classification", num_labels=3)


def test_saved_weights_of_a_pruned_model_must_fit_its_config(tmp_path: Path) -> None:
    checkpoint.save(pruned(), tmp_path)
    shapes = json.loads((tmp_path / "config.json").read_text())["pruned_shapes"]
    edit_config(tmp_path, pruned_shapes=shapes | {"heads": [1, *shapes["heads"][1:]]})
    with pytest.raises(InputError, match="cannot load this checkpoint"):
        checkpoint.load(tmp_path, FAMILIES)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_path_that_is_not_there_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match="no such directory"):
        checkpoint.load_pretrained(name, FAMILIES, head=ENCODER)


def test_load_never_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="out: no such directory"):
        checkpoint.load(Path("out"), FAMILIES)


def test_an_unreachable_hub_is_a_setup_error_that_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline_hub(monkeypatch, tmp_path)
    with pytest.raises(SetupError, match="no such directory, and the hub cannot give") as raised:
        checkpoint.load_pretrained("nobody/no-such-model", FAMILIES, head=ENCODER)
    assert raised.value.exit_code == 3
    assert "-m" in raised.value.hint


def test_a_model_in_the_cache_of_the_hub_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline_hub(monkeypatch, tmp_path)
    revision = "0" * 40
    repository = tmp_path / "models--somebody--tiny"
    tiny_checkpoint(repository / "snapshots" / revision, num_labels=None)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    model = checkpoint.load_pretrained("somebody/tiny", FAMILIES, head=ENCODER)
    assert torch.equal(output(model), output(tiny_model(num_labels=None)))


def offline_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.real
def test_a_real_checkpoint_has_the_published_hash_and_loads(shared: Path) -> None:
    directory = shared / "models" / "all-MiniLM-L6-v2-mrpc"
    assert checkpoint.fingerprint(directory).startswith("0e7516bd0078a15a")
    model = checkpoint.load_pretrained(str(directory), FAMILIES, head=CLASSIFIER, num_labels=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_986
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize(
    "head", ["sequence-classification", "token-classification", "question-answering", "feature-extraction"]
)
def test_the_head_of_a_model_is_known(model_type: str, head: Any) -> None:
    assert head_of(tiny_model(model_type, head=head)) == head
