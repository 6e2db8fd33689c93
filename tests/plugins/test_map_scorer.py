"""The scorer network, its published values, and what its files may hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor_plugins.methods import _map_scorer
from compressor_plugins.methods._map_scorer import MapScorer, fresh_scorer, padded_maps, resized_maps, score_maps
from compressor_plugins.methods._scorer_files import load_scorer, save_scorer

SHAPES = {
    "main.0.weight": (8, 1, 4, 4),
    "main.2.weight": (16, 8, 4, 4),
    "main.5.weight": (32, 16, 4, 4),
    "main.8.weight": (64, 32, 4, 4),
    "main.11.weight": (128, 64, 4, 4),
    "main.14.weight": (2, 128, 4, 4),
    **{
        f"main.{number}.{name}": (width,)
        for number, width in ((3, 16), (6, 32), (9, 64), (12, 128))
        for name in ("weight", "bias", "running_mean", "running_var")
    },
    **{f"main.{number}.num_batches_tracked": () for number in (3, 6, 9, 12)},
}
PUBLISHED = {
    "uniform": (1.119766, 1.230674, 0.007750, 0.209829),
    "identity": (0.000000, 0.002691, 1.022827, 2.000000),
    "to_first": (0.000009, 0.004203, 1.980964, 0.004589),
    "previous": (1.999992, 1.999751, 0.000802, 0.003013),
    "next": (0.392486, 1.998729, 0.000000, 1.791806),
    "uniform_32": (0.800153, 0.896210, 0.000200, 0.002496),
    "identity_32": (0.000000, 0.013149, 0.000000, 2.000000),
    "previous_32": (1.999459, 1.999344, 0.001211, 0.006771),
    "to_first_32": (0.001165, 0.020623, 0.241841, 0.001997),
    "to_last_32": (0.022623, 0.828789, 0.129720, 1.383641),
    "zeros": (0.961622, 0.961239, 1.175689, 0.790567),
}
"""Scores of base pair, base single, large pair, large single (``design/methods/smp.md``, section 2.2)."""


def pattern(name: str) -> Tensor:
    """Return a map of 128 or fewer tokens, shape (n, n)."""
    kind, _, length = name.rpartition("_") if name[-1].isdigit() else (name, "", "128")
    n = int(length)
    rows = torch.arange(n)
    maps = torch.zeros(n, n)
    columns = {
        "identity": rows,
        "to_first": torch.zeros_like(rows),
        "to_last": torch.full_like(rows, n - 1),
        "previous": (rows - 1).clamp_min(0),
        "next": (rows + 1).clamp_max(n - 1),
    }
    if kind == "uniform":
        return maps + 1 / n
    if kind != "zeros":
        maps[rows, columns[kind]] = 1.0
    return maps


def as_batch(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps[None, None], torch.ones(1, len(maps), dtype=torch.int64)


def random_maps(*, lengths: tuple[int, ...] = (9, 5), heads: int = 3, longest: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    weights = torch.randn(len(lengths), heads, longest, longest, generator=generator) * 3
    return weights.masked_fill(~mask.bool()[:, None, None, :], float("-inf")).softmax(dim=3), mask


def test_a_scorer_has_the_26_tensors_of_the_released_ones():
    scorer = fresh_scorer(torch.Generator().manual_seed(0))
    assert {name: tuple(tensor.shape) for name, tensor in scorer.state_dict().items()} == SHAPES
    assert sum(parameter.numel() for parameter in scorer.parameters()) == 178_784
    assert {module.eps for module in scorer.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-5}


def test_a_fresh_scorer_is_drawn_as_published():
    scorer = fresh_scorer(torch.Generator().manual_seed(0))
    for name, parameter in scorer.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 100:
            assert float(parameter.detach().mean()) == pytest.approx(float(parameter.ndim == 1), abs=0.004)
            assert float(parameter.detach().std()) == pytest.approx(0.01, rel=0.2)


@pytest.mark.real
@pytest.mark.parametrize(("file", "first"), [("base", 0), ("large", 2)])
def test_released_scorers_give_the_published_scores(file: str, first: int, shared: Path):
    path = shared / "models" / "smp-scorers" / f"{file}.bin"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the released scorers are not ours to ship")
    scorer, provenance = load_scorer(path)
    assert provenance == {}
    for name, expected in PUBLISHED.items():
        found = scorer(padded_maps(*as_batch(pattern(name))))[0].detach()
        torch.testing.assert_close(found, torch.tensor(expected[first : first + 2]), rtol=0, atol=1e-4, msg=name)


@pytest.mark.real
def test_a_resized_pattern_scores_as_a_long_one(shared: Path):
    scorer, _ = load_scorer(shared / "models" / "smp-scorers" / "base.bin")
    found = scorer(resized_maps(*as_batch(pattern("uniform_32"))))[0].detach()
    torch.testing.assert_close(found, torch.tensor(PUBLISHED["uniform"][:2]), rtol=0, atol=1e-4)


def test_padded_maps_do_not_depend_on_the_padding():
    maps, mask = random_maps()
    wider = torch.nn.functional.pad(maps, (0, 20, 0, 20), value=0.0)
    wider[:, :, 12:, :12] = 0.25  # what a padded query attends to is nobody's concern
    assert torch.equal(padded_maps(wider, torch.nn.functional.pad(mask, (0, 20))), padded_maps(maps, mask))
    shaped = padded_maps(maps, mask)
    assert shaped.shape == (6, 1, 128, 128)
    assert not shaped[3:, :, 5:].any()
    assert not shaped[3:, :, :, 5:].any()
    torch.testing.assert_close(shaped[:3, 0, :9].sum(dim=2), torch.ones(3, 9))


def test_resized_maps_do_not_depend_on_the_padding_and_keep_rows_that_sum_to_one():
    maps, mask = random_maps()
    wider = torch.nn.functional.pad(maps, (0, 20, 0, 20), value=0.5)
    assert torch.equal(resized_maps(wider, torch.nn.functional.pad(mask, (0, 20))), resized_maps(maps, mask))
    torch.testing.assert_close(resized_maps(maps, mask).sum(dim=3), torch.ones(6, 1, 128))


def test_a_map_of_128_tokens_is_the_same_padded_and_resized():
    maps, mask = random_maps(lengths=(128,), longest=128)
    torch.testing.assert_close(resized_maps(maps, mask), padded_maps(maps, mask), rtol=0, atol=1e-6)


def test_chunks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch):
    scorer = fresh_scorer(torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    maps = padded_maps(*random_maps())
    whole = score_maps(scorer, maps, 0)
    monkeypatch.setattr(_map_scorer, "CHUNK", 4)
    torch.testing.assert_close(score_maps(scorer, maps, 0), whole)


def test_a_saved_scorer_comes_back_with_its_provenance(tmp_path: Path):
    scorer = fresh_scorer(torch.Generator().manual_seed(3))
    save_scorer(scorer, tmp_path / "scorer.safetensors", {"seed": 3, "tasks": ["glue"]})
    loaded, provenance = load_scorer(tmp_path / "scorer.safetensors")
    assert provenance == {"seed": 3, "tasks": ["glue"]}
    assert all(torch.equal(tensor, scorer.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training


@pytest.mark.parametrize("legacy", [True, False])
def test_a_state_dict_saved_by_torch_is_read(legacy: bool, tmp_path: Path):  # noqa: FBT001 - a test's parameter
    scorer = fresh_scorer(torch.Generator().manual_seed(3))
    torch.save(scorer.state_dict(), tmp_path / "a.bin", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load_scorer(tmp_path / "a.bin")[0].main[0].weight, scorer.main[0].weight)


class Evil:
    """Would write a file, were it unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.place,)


def changed(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Tensor]:
    tensors = MapScorer().state_dict()
    change(tensors)
    return dict(tensors)


BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a shape": (
        lambda t: t.update({"main.2.weight": torch.zeros(32, 8, 4, 4)}),
        r"'main.2.weight': expected torch.float32 of shape \(16, 8, 4, 4\), got torch.float32 of shape \(32, 8, 4, 4\)",
    ),
    "half precision": (
        lambda t: t.update({"main.0.weight": t["main.0.weight"].half()}),
        r"'main.0.weight': expected torch.float32 .* got torch.float16",
    ),
    "one too few": (lambda t: t.pop("main.14.weight"), "the file lacks 'main.14.weight'"),
    "one too many": (lambda t: t.update({"main.15.weight": torch.zeros(1)}), "has an unknown 'main.15.weight'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_scorer_is_refused(case: str, tmp_path: Path):
    change, message = BROKEN[case]
    torch.save(changed(change), tmp_path / "a.bin")
    with pytest.raises(InputError, match=message):
        load_scorer(tmp_path / "a.bin")


@pytest.mark.parametrize("name", ["a.bin", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02garbage.", pickle.dumps([1, 2])])
def test_garbage_is_refused(content: bytes, name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: expected a"):
        load_scorer(tmp_path / name)


def test_code_in_a_pickle_is_not_run(tmp_path: Path):
    torch.save({"main.0.weight": Evil(tmp_path / "harm")}, tmp_path / "a.bin")
    with pytest.raises(InputError, match="26 tensors and nothing else in it"):
        load_scorer(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Evil(tmp_path / "harm")))
    with pytest.raises(InputError):
        load_scorer(tmp_path / "b.bin")
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such scorer file"):
        load_scorer(tmp_path / "no.bin")
