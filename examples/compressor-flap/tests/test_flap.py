"""FLAP keeps its contract, scores what it says, and its compensation is exact where nothing fluctuates."""

import pytest
import torch
from compressor_flap import Flap
from compressor_flap._numerics import activation_moments, unit_scores
from pydantic import ValidationError

from compressor.model import raw_output, shrink
from compressor.testing import assert_method_conforms, tiny_session


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("options", [{}, {"metric": "ifv"}, {"standardize": False}, {"compensate": False}])
def test_the_method_conforms(labels, options):
    assert_method_conforms(Flap(target={"macs": 0.5}, **options), labels=labels)


def test_moments_are_those_of_real_tokens():
    session = tiny_session()
    group, rows = session.groups[1], []
    consumer = session.model.get_submodule(group.consumer.module)
    with consumer.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][0])), torch.no_grad():
        for row in session.calibration.rows:  # one by one: no padding at all
            tokens = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}
            raw_output(session.model, tokens)
    read, found = torch.cat(rows).double(), activation_moments(session, [group])[group.name]
    torch.testing.assert_close(found.mean, read.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.variance, read.var(dim=0), rtol=1e-4, atol=1e-5)


def test_a_head_scores_the_mean_of_its_columns():
    session = tiny_session()
    group = session.groups[0]
    moments = activation_moments(session, [group])[group.name]
    weight = session.model.get_submodule(group.consumer.module).weight.double()
    columns = moments.variance * weight.square().sum(dim=0)
    expected = ((columns - columns.mean()) / columns.std()).reshape(group.units, group.width).mean(dim=1)
    found = unit_scores(Flap(target={"macs": 0.5}), session.model, group, moments)
    torch.testing.assert_close(found, expected)


def test_compensation_is_exact_where_nothing_fluctuates():
    session = tiny_session()
    for group in session.groups:
        if group.kind == "ffn_neurons":  # half of the neurons become constants: a fifth of the MACs
            producer = session.model.get_submodule(group.producers[0].module)
            producer.weight[: group.units // 2] = 0
            producer.bias[: group.units // 2] = 1.0
    method = Flap(target={"macs": 0.85}, metric="ifv", standardize=False)
    pruned = method.prune(session)
    batch = next(session.calibration.batches(session.device))
    dense = raw_output(session.model, batch)
    with_bias = raw_output(shrink(session.model, session.family, pruned.masks, pruned.weights), batch)
    without = raw_output(shrink(session.model, session.family, pruned.masks), batch)
    assert any(not mask.all() for mask in pruned.masks.keep.values())
    torch.testing.assert_close(with_bias, dense, rtol=0, atol=1e-4)
    assert float((without - dense).abs().max()) > 0.01


def test_only_macs_are_a_target():
    with pytest.raises(ValidationError, match=r"flap takes target\.macs; got target\.sparsity"):
        Flap(target={"sparsity": 0.5})
