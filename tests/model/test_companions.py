from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.model.companions import copy_companions


def encoder(place: Path, modules: object) -> Path:
    (place / "1_Pooling").mkdir(parents=True)
    (place / "tokenizer.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (place / "1_Pooling" / "pytorch_model.bin").write_bytes(b"pickle")
    return place


def test_a_sentence_encoder_keeps_its_pooling_and_no_pickle(tmp_path: Path):
    source = encoder(
        tmp_path / "source", [{"path": ""}, {"path": "."}, {"path": "1_Pooling"}, {"path": "1_Pooling/.."}]
    )
    out = tmp_path / "out"
    out.mkdir()
    copy_companions(source, out)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {"tokenizer.json", "modules.json", "1_Pooling/config.json"}
    assert (out / "modules.json").read_bytes() == (source / "modules.json").read_bytes()


def test_a_tokenizer_of_transformers_5_gets_the_name_that_every_version_knows(tmp_path: Path):
    (tmp_path / "source").mkdir()
    told = '{"tokenizer_class": "TokenizersBackend", "model_max_length": 512}'
    (tmp_path / "source" / "tokenizer_config.json").write_text(told)
    copy_companions(tmp_path / "source", tmp_path)
    expected = told.replace("TokenizersBackend", "PreTrainedTokenizerFast")
    assert (tmp_path / "tokenizer_config.json").read_text() == expected


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([{"path": "../../elsewhere"}], "leads out of the checkpoint"),
        ([{"name": "0"}], "is damaged"),
        ([3], "is damaged"),
        (3, "is damaged"),
    ],
)
def test_broken_modules_are_one_clear_error(tmp_path: Path, modules: object, message: str):
    source = encoder(tmp_path / "source", modules)
    with pytest.raises(InputError, match=message):
        copy_companions(source, tmp_path)
