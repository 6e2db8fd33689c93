"""one_shot and sparsegpt on tiny models: patterns, weights, criteria."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressor.errors import InputError
from compressor.model import Masks, apply_masks, shrink
from compressor.model.checkpoint import fingerprint
from compressor.model.outputs import raw_output
from compressor.plugin import Pruned, Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.plan import compile_plan
from compressor.run.session import Session
from tests.plugins.sessions import FAMILIES, label_free, labelled
from tests.toys import toy_recipe

REGISTRY = Registry.load()
CRITERIA = REGISTRY.names("criterion")
METHODS = pytest.mark.parametrize("name", ["one_shot", "sparsegpt"])


def prune(
    session: Session, name: str = "one_shot", *, sparsity: float = 0.5, pattern: Any = "2:4", **options: Any
) -> Pruned:
    given = {"target": {"sparsity": sparsity}, "pattern": pattern, **options}
    method: Any = REGISTRY.get("method", name).model_validate(given, context={"registry": REGISTRY})
    pruned: Pruned = method.prune(session)
    return pruned


def runs_of_four(mask: torch.Tensor) -> list[int]:
    zeros: list[int] = (~mask).reshape(len(mask), -1, 4).sum(dim=2).unique().tolist()
    return zeros


@METHODS
@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_every_run_of_every_encoder_weight_is_two_of_four(name: str, model_type: str):
    session = labelled(model_type, count=12)
    before = fingerprint(session.model)
    pruned = prune(session, name)
    inside = [group.layer for group in session.groups]
    assert len([key for key in pruned.masks.keep if key.rpartition(".layer")[0]]) >= 6 * len(set(inside))
    assert all(runs_of_four(mask) == [2] for mask in pruned.masks.keep.values())
    assert not [key for key in pruned.masks.keep if "embeddings" in key or key.startswith("classifier.weight")]
    assert fingerprint(session.model) == before
    assert set(pruned.aligned) == pruned.masks.keep.keys()


@METHODS
def test_the_same_session_gives_the_same_masks(name: str):
    one, other = (prune(labelled(count=12), name, pattern="1x1", sparsity=0.3) for _ in range(2))
    assert one.masks == other.masks
    assert all(torch.equal(weight, other.weights[key]) for key, weight in one.weights.items())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("make", [labelled, label_free], ids=["labels", "no labels"])
def test_every_criterion_prunes_with_and_without_labels(criterion: str, make: Any):
    pruned = prune(make(count=12), criterion=criterion, pattern="4x1", sparsity=0.5, pruning_scope="global")
    assert pruned.masks.sparsity == pytest.approx(0.5, abs=1e-3)
    assert len({round(Masks({key: mask}).sparsity, 3) for key, mask in pruned.masks.keep.items()}) > 1


def test_gradient_scores_do_not_depend_on_the_batch_size():
    one, other = (prune(labelled(count=12, batch_size=size), criterion="snip", pattern="1x1") for size in (3, 12))
    agreed = [float((one.masks.keep[key] == mask).float().mean()) for key, mask in other.masks.keep.items()]
    assert min(agreed) > 0.999


@METHODS
def test_weights_that_no_output_depends_on_stay_dense_where_gradients_say_so(
    name: str, caplog: pytest.LogCaptureFixture
):
    session = label_free(count=12)  # its pooler is not read
    options = {"criterion": "snip"} if name == "one_shot" else {}
    pruned = prune(session, name, excluded_op_names=[], op_names=["pooler", r"layer\.0"], **options)
    assert ("pooler.dense.weight" in pruned.masks.keep) == (name == "sparsegpt")
    if name == "one_shot":
        assert "pooler.dense.weight stays dense: the output does not depend on it" in caplog.text


def test_nothing_to_prune_is_an_error_and_odd_shapes_are_named(caplog: pytest.LogCaptureFixture):
    with pytest.raises(InputError, match="none of the 18 chosen weights can take the pattern 5x1"):
        prune(labelled(count=12), pattern="5x1")
    with pytest.raises(InputError, match=r"choose no layer; expected some of 19, such as bert\.encoder\.layer\.0\."):
        prune(labelled(count=12), op_names=["nowhere"])
    pruned = prune(labelled(count=12), pattern="1x32", sparsity=0.5)
    assert not [key for key in pruned.masks.keep if key.endswith("output.dense.weight") and "attention" not in key]
    dense = ", ".join(f"bert.encoder.layer.{number}.output.dense" for number in range(3))
    assert f"{dense} stay dense under pattern 1x32: shape (32, 48) does not divide into blocks" in caplog.text
    assert caplog.text.count("stay dense") == 1


def test_wanda_as_published_takes_the_same_from_every_row():
    pruned = prune(labelled(count=12), criterion="wanda", pattern="1x1", pruning_scope="row")
    assert {tuple((~mask).sum(dim=1).unique().tolist()) for mask in pruned.masks.keep.values()} == {(16,), (24,)}


@METHODS
def test_permuting_keeps_more_and_the_dense_model_computes_the_same(name: str):
    session = labelled(count=12)
    pruned = prune(session, name, permute=True)
    figures = pruned.metrics["permutation"]
    assert figures["weights"] == 6
    assert figures["kept_score_after"] > 1.01 * figures["kept_score_before"]
    if name == "one_shot":
        batch = next(session.calibration.batches(session.device))
        other = shrink(session.model, session.family, Masks({}), pruned.weights)
        with torch.no_grad():
            torch.testing.assert_close(raw_output(other, batch), raw_output(session.model, batch), rtol=0, atol=1e-5)


def test_masks_and_weights_are_of_one_order():
    """What the masked weights hold is what the permutation promised."""
    session = labelled(count=12)
    pruned = prune(session, permute=True)
    other = shrink(session.model, session.family, Masks({}), pruned.weights)
    apply_masks(other, pruned.masks)
    kept = sum(
        float(other.get_parameter(f"{group.consumer.module}.weight").double().abs().sum()) for group in session.groups
    )
    assert kept == pytest.approx(pruned.metrics["permutation"]["kept_score_after"], rel=1e-6)


def test_earlier_masks_are_not_reordered(caplog: pytest.LogCaptureFixture):
    session = labelled(count=12)
    session.weight_masks = prune(session).masks
    assert prune(session, permute=True).weights == {}
    assert "nothing is reordered" in caplog.text


def test_what_earlier_steps_removed_goes_first_and_counts():
    session = labelled(count=12)
    session.weight_masks = prune(session, pattern="1x1", sparsity=0.3).masks
    apply_masks(session.model, session.weight_masks)
    later = prune(session, pattern="1x1", criterion="movement", sparsity=0.5).masks
    assert session.weight_masks.merge(later).sparsity == pytest.approx(0.5, abs=1e-3)


def test_sparsegpt_loses_less_than_magnitude():
    session = labelled(count=40)

    def error(pruned: Pruned) -> float:
        other = shrink(session.model, session.family, Masks({}), pruned.weights)
        apply_masks(other, pruned.masks)
        total = 0.0
        for batch in session.calibration.batches(session.device):
            with torch.no_grad():
                total += float((raw_output(other, batch) - raw_output(session.model, batch)).square().sum())
        return total

    assert error(prune(session, "sparsegpt")) < 0.7 * error(prune(session))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one_shot", {"target": {"macs": 0.5}}, r"one_shot takes target\.sparsity; got target\.macs"),
        ("one_shot", {"max_sparsity_ratio_per_op": 0.4}, r"got 0, 0\.5, 0\.4"),
        ("one_shot", {"min_sparsity_ratio_per_op": 0.6}, r"got 0\.6, 0\.5, 0\.98"),
        ("one_shot", {"pattern": "4x1", "permute": True}, r"permute keeps more under N:M .* got pattern 4x1"),
        ("one_shot", {"op_names": ["(query"]}, r"expected a regular expression, got '\(query': missing \)"),
        ("sparsegpt", {"excluded_op_names": ["*"]}, r"expected a regular expression, got '\*': nothing to repeat"),
        ("sparsegpt", {"pattern": "channelx1"}, r"sparsegpt takes patterns such as 1x1, 4x1 and 2:4; got channelx1"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str):
    given = {"target": {"sparsity": 0.5}, "pattern": "2:4", **options}
    with pytest.raises(ValidationError, match=message):
        REGISTRY.get("method", name).model_validate(given, context={"registry": REGISTRY})


def remarks(tmp_path: Path, *, gates: bool = True, **options: Any) -> list[str]:
    prune_step = {"prune": {"method": "one_shot", "target": {"sparsity": 0.5}, **options}}
    verify = {"verify": {"sequence": 16, "rounds": 3, "gates": {"metric_drop": 1.0} if gates else {}}}
    recipe = toy_recipe(tmp_path, steps=[prune_step, {"export": {}}, verify])
    return list(compile_plan(load_recipe(recipe), REGISTRY).lints)


@pytest.mark.parametrize(
    ("pattern", "use"),
    [
        ("2:4", "sparse tensor cores, through TensorRT or torch's semi-structured kernels"),
        ("4x1", "a compressed download, and runtimes whose kernels skip such zeros"),
        ("1x1", "a compressed download, and runtimes whose kernels skip such zeros"),
    ],
)
def test_a_plan_says_that_zeros_give_no_speed_what_they_are_good_for_and_what_does(
    pattern: str, use: str, tmp_path: Path
):
    (remark,) = remarks(tmp_path, pattern=pattern)
    assert remark.startswith(f"steps.0.prune: {pattern} zeroes weights where they stand")
    for words in ("measured on its CPU provider: 1.00x", use, "structured methods, which remove heads and neurons"):
        assert words in remark


def test_a_plan_says_what_of_channels_is_removed(tmp_path: Path):
    (remark,) = remarks(tmp_path, pattern="channelx1")
    assert "FFN neurons and whole heads that become empty are taken out" in remark
    assert "1.00x" not in remark
