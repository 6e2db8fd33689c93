"""The counter that the benchmarks' cost in dense forwards comes from."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from compressor.model.costs import encoder_macs
from compressor.model.outputs import raw_output
from compressor.plugin import Target
from compressor.prune import Evidence, Moments, SublayerStatistics, fitting, frozen, remove_units
from compressor.run.session import Session
from compressor.testing import session_on, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.methods.kprune import KPrune
from compressor_plugins.methods.obs import Obs
from tests.plugins.sessions import Labelled
from tests.test_house import ROOT


@pytest.fixture(scope="module")
def macs() -> Any:
    spec = importlib.util.spec_from_file_location("macs", ROOT / "benchmarks" / "macs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_forward_counts_the_encoder_and_its_head(macs: Any, attention: str):
    model = tiny_model(attention=attention)
    batch = tiny_batch(lengths=(9, 9), labels=False)
    with torch.no_grad(), macs.counting() as counter:
        raw_output(model, batch)
    head = 32 * 32 + 32 * 2  # pooler and classifier, of one token
    assert counter.macs["forward"] == 2 * (encoder_macs(model, Bert().groups(model), 9) + head)
    assert counter.macs["backward"] == counter.macs["algebra"] == 0


def test_a_backward_over_activations_costs_about_a_forward(macs: Any):
    model = tiny_model(attention="sdpa")
    batch = tiny_batch(lengths=(9, 9), labels=False)
    embedded = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    with macs.counting() as counter, frozen(model):
        output = model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
        torch.autograd.grad(output.sum(), embedded)
    linear = 2 * 3 * 9 * (4 * 32 * 32 + 2 * 32 * 48) + 2 * (32 * 32 + 32 * 2)
    attention = counter.macs["forward"] - linear
    assert counter.macs["backward"] == linear + attention // 2 * 5


def test_moments_and_solves_are_algebra_wherever_they_are_called(macs: Any):
    generator = torch.Generator().manual_seed(0)
    with macs.counting() as counter:
        moments = Moments(6, 4, torch.device("cpu"))
        moments.add(*(torch.randn(*shape, generator=generator) for shape in ((50, 6), (50, 4))), torch.ones(50))
        gram = counter.macs["algebra"]
        group = Bert().groups(tiny_model())[1]
        fitting.best_correction(group, "weights", torch.randn(4, 6, generator=generator), Evidence(moments, moments))
    assert gram == 50 * 6 * (6 + 4)
    factor_and_solve = 6**3 // 6 + 6**2 * 4
    assert counter.macs["algebra"] - gram >= len(fitting.RIDGES) * factor_and_solve
    assert counter.macs["forward"] == counter.macs["backward"] == 0


def test_removal_and_its_metric_are_algebra(macs: Any):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    statistics = SublayerStatistics(8, 5, torch.device("cpu"))
    statistics.add(
        a.unsqueeze(0), torch.randn(3, 1, 50, 5, generator=generator, dtype=torch.float64), torch.ones(1, 50)
    )
    with macs.counting() as counter:
        assert statistics.metric.shape[0] == 5
    assert counter.macs["forward"] == 5**3 * 9 // 2  # what is not called by a known owner counts as a pass
    with macs.counting() as counter:
        order = remove_units(a.T @ a, a[:8, :4], width=1, counts=[4, 0], ridge=1e-2)
    assert counter.macs["forward"] >= 8**3 + 4**2 * 4
    with macs.counting() as counter:
        order.updated(torch.randn(5, 8, generator=generator), 4)
    assert counter.macs["algebra"] == 4 * 4 * 5 + 4**3 // 6 + 4**2 * 5
    assert counter.macs["forward"] == counter.macs["backward"] == 0


@pytest.mark.parametrize(
    ("options", "most"),
    [({"measure": "batch-gradient", "refresh": 1}, 15), ({"measure": "curvature", "refresh": 0}, 6)],
    ids=["published", "once"],
)
@pytest.mark.parametrize("keep", [0.2, 0.6])
def test_kprune_on_six_layers_costs_as_few_dense_forwards_as_promised(
    macs: Any, options: dict[str, Any], most: float, keep: float
):
    session = session_on(tiny_model(num_hidden_layers=6), Bert(), Labelled(), count=16)
    whole = dense_forward(macs, session)
    with macs.counting() as counter:
        KPrune(target=Target(macs=keep), **options).prune(session)
    passes = counter.macs["forward"] + counter.macs["backward"]
    assert 2 < passes / whole <= most


def dense_forward(macs: Any, session: Session) -> int:
    """Return F."""
    with macs.counting() as counter, torch.no_grad():
        for batch in session.calibration.batches(session.device):
            raw_output(session.model, batch)
    return int(counter.macs["forward"])


@pytest.mark.parametrize(("keeps", "most"), [((0.2, 0.4, 0.6), 4.5), ((0.6,), 3.5)])
def test_obs_on_six_layers_costs_as_few_dense_forwards_as_promised(macs: Any, keeps: tuple[float, ...], most: float):
    session = session_on(tiny_model(num_hidden_layers=6), Bert(), Labelled(), count=16)
    whole = dense_forward(macs, session)
    targets = [Target(macs=keep) for keep in keeps]
    with macs.counting() as counter:
        found = list(Obs(target=targets[0]).prune_all(session, targets))
    assert len(found) == len(keeps)
    passes = counter.macs["forward"] + counter.macs["backward"]
    assert 2 < passes / whole <= most
    assert 0.9 * whole < counter.macs["backward"] < 1.2 * whole  # two classes: one backward over activations
    assert counter.macs["algebra"] > 0
