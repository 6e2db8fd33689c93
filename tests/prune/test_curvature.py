"""What one pass over the dense model says of its sublayers, against explicit sums and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.model import Masks, PrunableGroup, shrink
from compressor.model.outputs import raw_output
from compressor.plugin import Task
from compressor.prune import DensePass, SublayerStatistics
from compressor.testing import TinyTexts, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.tasks.squad import Squad
from tests.plugins.sessions import FAMILIES, Labelled

LENGTHS = (7, 3, 12, 5, 9, 4)


def real_tokens(batch: Mapping[str, Tensor], _: PrunableGroup) -> Tensor:
    return batch["attention_mask"]


def dense_pass(model: nn.Module, task: Task, *, draws: int = 1, generator: Any = None, **options: Any) -> DensePass:
    generator = generator or np.random.default_rng(0)

    def signals(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return task.curvature(task.output(raw, batch), draws=draws, generator=generator)

    family: Any = options.pop("family", Bert())
    options.setdefault("token_weights", real_tokens)
    return DensePass(model, family.groups(model), signals=signals, **options)


def model_of(classes: int | None = 3, model_type: str = "bert") -> nn.Module:
    return tiny_model(model_type, num_labels=classes, num_hidden_layers=2).double()


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, Tensor]]:
    """Return batches of one row each."""
    return [tiny_batch(lengths=(length,), labels=False, seed=seed) for seed, length in enumerate(lengths)]


def batched(rows: list[dict[str, Tensor]], *, padding: int = 0) -> dict[str, Tensor]:
    longest = max(row["input_ids"].shape[1] for row in rows) + padding
    return {
        name: torch.cat([nn.functional.pad(row[name], (0, longest - row[name].shape[1])) for row in rows])
        for name in rows[0]
    }


def statistics_of(batches: list[dict[str, Tensor]], model: nn.Module, **options: Any) -> dict[str, SublayerStatistics]:
    dense = dense_pass(model, Labelled(), **options)
    for batch in batches:
        dense.run(model, batch)
    return dense.statistics


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
@pytest.mark.parametrize("change", ["padding", "batch size", "order"])
def test_statistics_depend_neither_on_padding_nor_on_batch_size_nor_on_order(model_type: str, change: str) -> None:
    model, rows = model_of(model_type=model_type), rows_of()
    batches = {
        "padding": [batched(rows[:3], padding=7), batched(rows[3:], padding=7)],
        "batch size": [batched(rows[:1]), batched(rows[1:])],
        "order": [batched(rows[3:]), batched(rows[:3])],
    }[change]
    family = FAMILIES[model_type]
    found = statistics_of(batches, model, family=family)
    expected = statistics_of([batched(rows[:3]), batched(rows[3:])], model, family=family)
    assert found.keys() == expected.keys()
    for name, statistics in expected.items():
        assert statistics.rows == found[name].rows == len(rows)
        assert float(statistics.metric.abs().max()) > 1e-6
        for attribute in ("mean", "covariance"):
            torch.testing.assert_close(
                getattr(found[name], attribute), getattr(statistics, attribute), rtol=1e-9, atol=1e-12
            )
        metrics = [each.metric @ each.metric.T for each in (found[name], statistics)]
        torch.testing.assert_close(*metrics, rtol=1e-6, atol=1e-10)


def read_by(model: nn.Module, group: PrunableGroup, batch: Mapping[str, Tensor]) -> Tensor:
    read: list[Tensor] = []
    consumer = model.get_submodule(group.consumer.module)
    with consumer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])), torch.no_grad():
        raw_output(model, batch)
    return read[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_and_covariance_are_numpys(*, weighted: bool) -> None:
    model, batch = model_of(), tiny_batch(lengths=LENGTHS, labels=False)
    weights = batch["attention_mask"].double()
    if weighted:
        weights = weights * torch.rand(weights.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = statistics_of([batch], model, token_weights=lambda *_: weights)
    for group in Bert().groups(model):
        real = weights > 0
        read, weight = read_by(model, group, batch)[real].numpy(), weights[real].numpy()
        expected = np.cov(read, rowvar=False, aweights=weight, bias=True)
        np.testing.assert_allclose(found[group.name].covariance.numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            found[group.name].mean.numpy(), np.average(read, axis=0, weights=weight), rtol=1e-9, atol=1e-12
        )


def gradients_at(model: nn.Module, group: PrunableGroup, row: Mapping[str, Tensor], task: Task) -> Tensor:
    """Return the gradients of one row's scalars at what a consumer gives, shape (K, T, D), by adding a zero to it."""
    shift = torch.zeros(*row["input_ids"].shape, 32, dtype=torch.float64, requires_grad=True)
    consumer = model.get_submodule(group.consumer.module)
    with consumer.register_forward_hook(lambda _, __, output: output + shift):
        scalars = task.curvature(raw_output(model, row), generator=np.random.default_rng(0))[0]
    return torch.stack([torch.autograd.grad(scalar, shift, retain_graph=True)[0][0] for scalar in scalars])


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_the_metric_is_the_mean_over_rows_of_every_tokens_gradients(model_type: str) -> None:
    model, rows, family = model_of(model_type=model_type), rows_of(), FAMILIES[model_type]
    found = statistics_of([batched(rows[:2]), batched(rows[2:])], model, family=family)
    for group in family.groups(model):
        expected = torch.zeros(32, 32, dtype=torch.float64)
        for row in rows:
            gradients = gradients_at(model, group, row, Labelled()).flatten(0, 1)
            expected += gradients.T @ gradients / len(rows)
        metric = found[group.name].metric
        assert metric.shape[1] < 32
        left_out = expected - metric @ metric.T
        assert abs(float(left_out.trace())) < 1e-3 * float(expected.trace())
        assert float(torch.linalg.eigvalsh(left_out)[0]) > -1e-9 * float(expected.trace())


def test_gradients_of_tokens_that_count_a_little_count_in_full() -> None:
    model, batch = model_of(), tiny_batch(lengths=LENGTHS, labels=False)
    whole, little = (
        statistics_of([batch], model, token_weights=lambda each, _, share=share: each["attention_mask"] * share)
        for share in (1.0, 0.1)
    )
    for name, statistics in whole.items():
        torch.testing.assert_close(little[name].gradients.gram, statistics.gradients.gram)
        assert little[name].inputs.weight == pytest.approx(0.1 * statistics.inputs.weight)


def test_tokens_that_do_not_count_are_left_out_of_both() -> None:
    model, batch = model_of(), tiny_batch(lengths=LENGTHS, labels=False)
    first = torch.zeros_like(batch["attention_mask"])
    first[:, 0] = 1
    found = statistics_of(
        [batch], model, token_weights=lambda _, group: first if group.index else real_tokens(batch, group)
    )
    for group in Bert().groups(model):
        tokens = first.bool() if group.index else batch["attention_mask"].bool()
        assert found[group.name].inputs.weight == int(tokens.sum())
        read = read_by(model, group, batch)[tokens]
        torch.testing.assert_close(found[group.name].mean, read.mean(dim=0))


# --- the divergence ---


class AllSigns:
    """Draws every vector of signs once: their mean is the expectation."""

    def integers(self, low: int, high: int, size: tuple[int, int, int]) -> Any:
        assert (low, high) == (0, 2)
        vectors = np.array(list(itertools.product((0, 1), repeat=size[2])))
        assert len(vectors) == size[1]
        return np.broadcast_to(vectors, size)


class Quantiles:
    """Draws the midpoints of equal shares, so that every position comes as often as its probability says."""

    def random(self, size: tuple[int, int, int]) -> Any:
        return np.ascontiguousarray(np.broadcast_to((np.arange(size[2]) + 0.5) / size[2], size))


def divergence_of_an_error(
    model: nn.Module, task: Task, row: Mapping[str, Tensor], *, consumer: str, shift: Tensor
) -> float:
    """Return how far one row's output moves when a consumer's moves by ``shift``, shape (T, D), both ways on average."""
    with torch.no_grad():
        dense = task.output(raw_output(model, row), row)
        total = 0.0
        for sign in (1, -1):
            hook = model.get_submodule(consumer).register_forward_hook(lambda _, __, out, s=sign: out + s * shift)
            with hook:
                moved = task.output(raw_output(model, row), row)
            total += float(task.divergences(moved, dense)[0]) / 2
    return total


def answers_row() -> dict[str, Tensor]:
    return {**rows_of((9,))[0], "window": torch.tensor([[4, 7]])}


SMALL: Mapping[str, Any] = {"num_hidden_layers": 2, "hidden_size": 4, "num_attention_heads": 2}
CASES: dict[str, tuple[Any, Task, Any, dict[str, Any], float]] = {
    "two classes": (lambda: model_of(2), Labelled(), rows_of((6,))[0], {}, 1e-3),
    "three classes": (lambda: model_of(3), Labelled(), rows_of((6,))[0], {}, 1e-3),
    "regression": (lambda: model_of(1), Labelled(), rows_of((6,))[0], {}, 1e-3),
    "label-free": (
        lambda: tiny_model(num_labels=None, **SMALL).double(),
        TinyTexts(),
        rows_of((6,))[0],
        {"draws": 16, "generator": AllSigns()},
        1e-3,
    ),
    "squad": (
        lambda: tiny_model(head="question-answering", num_hidden_layers=2).double(),
        Squad(max_length=16),
        answers_row(),
        {"draws": 500, "generator": Quantiles()},
        2e-2,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
@pytest.mark.parametrize("token", [0, 2])
def test_the_metric_is_the_divergence_that_a_small_error_at_a_token_costs(case: str, kind: str, token: int) -> None:
    build, task, row, options, tolerance = CASES[case]
    model = build()
    group = next(group for group in Bert().groups(model) if group.kind == kind)  # of the lower layer
    only = torch.zeros_like(row["attention_mask"])
    only[0, token] = 1
    dense = dense_pass(model, task, **options, token_weights=lambda *_: only)
    dense.run(model, row)
    statistics = dense.statistics[group.name]
    gram = statistics.gradients.gram
    generator, step = torch.Generator().manual_seed(0), 1e-3
    for _ in range(3):
        error = torch.randn(len(gram), generator=generator, dtype=torch.float64)
        shift = torch.zeros(only.shape[1], len(gram), dtype=torch.float64)
        shift[token] = step * error
        cost = divergence_of_an_error(model, task, row, consumer=group.consumer.module, shift=shift) / step**2
        most = float(gram.trace() * error.square().sum()) / 2
        assert most > 1e-6
        assert 0.5 * float(error @ gram @ error) == pytest.approx(cost, rel=tolerance, abs=1e-5 * most)
        # The metric may leave out a thousandth of the curvature.
        felt = 0.5 * float((statistics.metric.T @ error).square().sum())
        assert felt == pytest.approx(cost, rel=tolerance, abs=1e-3 * most)


def test_the_metric_adds_up_what_tokens_cost_and_averages_rows() -> None:
    model, rows = model_of(2), rows_of((4, 6))
    group = Bert().groups(model)[1]
    dense = dense_pass(model, Labelled())
    dense.run(model, batched(rows))
    error, step = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1e-3
    cost = 0.0
    for row in rows:
        length = row["input_ids"].shape[1]
        for token in range(length):
            shift = torch.zeros(length, 32, dtype=torch.float64)
            shift[token] = step * error
            cost += divergence_of_an_error(model, Labelled(), row, consumer=group.consumer.module, shift=shift) / 2
    metric = dense.statistics[group.name].metric
    felt = 0.5 * float((metric.T @ error).square().sum())
    assert felt == pytest.approx(cost / step**2, rel=1e-2)


# --- what a pass leaves behind ---


def test_the_model_is_left_as_it_was() -> None:
    model, batch = model_of(), tiny_batch(labels=False)
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    statistics_of([batch], model)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n][0]) and p.requires_grad == before[n][1] for n, p in model.named_parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("family", [Bert(), DistilBert()], ids=["bert", "distilbert"])
def test_emptied_sublayers_have_no_statistics(family: Any) -> None:
    model = model_of(model_type=family.name)
    groups = family.groups(model)
    gone = Masks({groups[0].name: torch.zeros(4, dtype=torch.bool), groups[3].name: torch.zeros(48, dtype=torch.bool)})
    smaller = shrink(model, family, gone)
    dense = dense_pass(smaller, Labelled(), family=family)
    dense.run(smaller, tiny_batch(labels=False))
    assert set(dense.statistics) == {groups[1].name, groups[2].name}


def held_bytes(dense: DensePass) -> int:
    moments = [m for each in dense.statistics.values() for m in (each.inputs, each.gradients)]
    tensors = [value for each in moments for value in vars(each).values() if isinstance(value, Tensor)]
    assert {type(value) for each in dense.statistics.values() for value in vars(each).values()} == {
        type(moments[0]),
        int,
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_statistics_do_not_grow_with_the_rows() -> None:
    model = model_of()
    sizes = []
    for count in (1, 4):
        dense = dense_pass(model, Labelled())
        for seed in range(count):
            dense.run(model, tiny_batch(lengths=LENGTHS, labels=False, seed=seed))
        sizes.append(held_bytes(dense))
    assert sizes[0] == sizes[1] > 0
