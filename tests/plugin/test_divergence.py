"""What a task says of distance to the dense model, and of its curvature there."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.plugin import Task


class Classes(Task):
    name = "classes"
    head = "sequence-classification"
    metric: ClassVar[str] = "accuracy"

    def load(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def metrics(self, rows: Any) -> dict[str, float]:
        raise NotImplementedError


class Vectors(Classes):
    name = "vectors"
    label_free = True


def outputs(classes: int, rows: int = 3) -> Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)


def hessian(task: Task, z: Tensor, temperature: float) -> Tensor:
    """Return the Hessian of the divergence from one row's own output, shape (C, C), by differentiating twice."""
    return torch.autograd.functional.hessian(
        lambda moved: task.divergences(moved.unsqueeze(0), z.unsqueeze(0), temperature=temperature)[0], z
    )


def products(task: Task, z: Tensor, **options: Any) -> Tensor:
    """Return the sum of outer products of the gradients of one row's curvature scalars, shape (C, C)."""
    generator = np.random.default_rng(0)
    jacobian = torch.autograd.functional.jacobian(
        lambda moved: task.curvature(moved.unsqueeze(0), generator=generator, **options)[0], z
    )
    return jacobian.T @ jacobian


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_curvature_is_the_hessian_of_the_divergence(classes: int, temperature: float) -> None:
    for z in outputs(classes):
        expected = hessian(Classes(), z, temperature)
        torch.testing.assert_close(products(Classes(), z, temperature=temperature), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("classes", [2, 5])
def test_curvature_agrees_with_finite_differences_of_the_divergence(classes: int) -> None:
    step = 1e-2
    for z in outputs(classes):
        direction = torch.randn(classes, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        moved = Classes().divergences((z + step * direction).unsqueeze(0), z.unsqueeze(0))
        quadratic = direction @ products(Classes(), z) @ direction
        assert float(2 * moved[0] / step**2) == pytest.approx(float(quadratic), rel=1e-2)


def test_projections_approach_the_hessian_of_the_squared_distance() -> None:
    z = outputs(4)[0]
    found = products(Vectors(), z, draws=4000)
    torch.testing.assert_close(found, 2 * torch.eye(4, dtype=torch.float64), rtol=0, atol=0.15)


def test_curvature_stays_finite_where_a_class_is_certain() -> None:
    z = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    scalars = Classes().curvature(z, generator=np.random.default_rng(0))
    (gradient,) = torch.autograd.grad(scalars.sum(), z)
    assert bool(gradient.isfinite().all())
    assert scalars.shape == (1, 2)


def test_divergence_is_the_kl_from_the_dense_output_times_the_squared_temperature() -> None:
    z, dense = outputs(3), outputs(3).flip(0)
    expected = 9 * nn.functional.kl_div((z / 3).log_softmax(1), (dense / 3).softmax(1), reduction="none").sum(dim=1)
    torch.testing.assert_close(Classes().divergences(z, dense, temperature=3.0), expected)
    assert float(Classes().divergences(dense, dense).abs().max()) < 1e-12


def test_a_regression_compares_values_row_by_row() -> None:
    z, dense = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1.0], [0.0], [2.0]])
    assert Classes().divergences(z, dense).tolist() == [0.0, 4.0, 9.0]
