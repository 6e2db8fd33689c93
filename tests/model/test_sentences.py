from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressor.errors import InputError
from compressor.model.sentences import Pooling, pooling_of, read_pooling, remember

FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def encoder(place: Path, config: dict[str, Any], *kinds: str) -> Path:
    """Write what sentence-transformers writes about modules of these kinds, behind the Transformer."""
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(("Transformer", *kinds))
    ]
    modules[0]["path"] = ""
    (place / "1_Pooling").mkdir(parents=True)
    (place / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **config}))
    (place / "modules.json").write_text(json.dumps(modules))
    return place


def flags(*on: str) -> dict[str, bool]:
    return {f"pooling_mode_{flag}": flag in on for flag in FLAGS}


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        (flags("mean_tokens"), "mean"),
        (flags("cls_token"), "cls"),
        (flags("max_tokens"), "max"),
        ({}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
@pytest.mark.parametrize("kinds", [("Pooling",), ("Pooling", "Normalize")])
def test_a_directory_says_how_it_pools(
    tmp_path: Path, config: dict[str, Any], mode: Any, kinds: tuple[str, ...]
) -> None:
    place = encoder(tmp_path, config, *kinds)
    assert read_pooling(place) == Pooling(mode, normalize="Normalize" in kinds)
    model_config: Any = SimpleNamespace()
    remember(model_config, place)
    assert json.loads(json.dumps(model_config.sentence_embedding)) == model_config.sentence_embedding
    assert pooling_of(model_config) == Pooling(mode, normalize="Normalize" in kinds)


@pytest.mark.parametrize(
    ("config", "kinds", "why"),
    [
        (flags("mean_tokens", "max_tokens"), ("Pooling",), r"mean_tokens \+ pooling_mode_max_tokens"),
        (flags("lasttoken"), ("Pooling",), "lasttoken"),
        ({"pooling_mode": "lasttoken"}, ("Pooling",), "lasttoken"),
        (flags("mean_tokens"), ("Pooling", "Dense", "Normalize"), "the modules Transformer, Pooling, Dense, Normalize"),
    ],
)
def test_what_a_graph_does_not_hold_is_refused_in_words(
    tmp_path: Path, config: dict[str, Any], kinds: tuple[str, ...], why: str
) -> None:
    model_config: Any = SimpleNamespace()
    remember(model_config, encoder(tmp_path, config, *kinds))
    with pytest.raises(InputError, match=f"the model's directory asks for .*{why}"):
        pooling_of(model_config)


def test_a_directory_without_modules_says_nothing(tmp_path: Path) -> None:
    model_config: Any = SimpleNamespace()
    remember(model_config, tmp_path)
    assert not vars(model_config)
    with pytest.raises(InputError, match=r"has no modules\.json"):
        pooling_of(model_config)


@pytest.mark.parametrize("damage", ["modules.json", "1_Pooling/config.json"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    place = encoder(tmp_path, flags("mean_tokens"), "Pooling")
    (place / damage).write_text("[1")
    with pytest.raises(InputError, match=f"{damage}: expected what sentence-transformers writes"):
        read_pooling(place)


def test_a_download_of_the_root_alone_loads_and_cannot_be_pooled_in_the_graph(tmp_path: Path) -> None:
    place = encoder(tmp_path, flags("mean_tokens"), "Pooling")
    shutil.rmtree(place / "1_Pooling")
    model_config: Any = SimpleNamespace()
    remember(model_config, place)
    with pytest.raises(InputError, match=r"described in 1_Pooling/config\.json, which is missing"):
        pooling_of(model_config)
