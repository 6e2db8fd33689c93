"""Conformance of pruning methods."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compressor.model import embeddings
from compressor.model.costs import encoder_macs, parameter_prices, priced
from compressor.model.masks import Masks
from compressor.plugin import Pruned, PruningMethod, Target
from compressor.run.calls import NamedFamily, read_only
from compressor.run.pruning import Applied, applied, checked_pruned
from compressor.run.session import Session
from compressor.testing.declarations import assert_declaration_conforms, asserted
from compressor.testing.sessions import tiny_session

ROUNDING = 1e-9


def assert_method_conforms(method: PruningMethod, session: Session | None = None, *, labels: bool = True) -> Pruned:
    """Assert that a method keeps its contract, and return what it pruned: a plugin author's one-line test.

    It leaves the session's model as it was: weights, hooks, gradients, modes; its masks are of the groups or of
    parameters, bool, in their shapes; weights are replacements of parameters in theirs; figures are plain data; the
    same seed gives the same bits, and so does ``prune_all`` for the one target; removing what it says gives what masking gives; and its ``target``, if it has one of
    MACs, parameters, heads, layers or sparsity, is met.

    Args:
        method: with its options.
        session: to prune; default: a tiny BERT with rows of random words.
        labels: whether the rows of the default session have labels.
    """
    assert_declaration_conforms(method)
    with TemporaryDirectory() as directory:
        given = session or tiny_session(labels=labels)
        first, second = (replace(given, run_dir=Path(directory) / name) for name in ("first", "second"))
        with asserted(method):
            method.check(first.model)
            if method.reads_texts:
                method.check_texts(first, first=True)
            assert isinstance(method.joint, bool), f"joint: expected True or False; got {method.joint!r}"
            pruned, again = _pruned(method, first), _pruned_as_in_a_sweep(method, second)
            assert pruned.masks == again.masks, "the same seed gave other masks"
            assert pruned.weights.keys() == again.weights.keys(), "the same seed gave other weights"
            for name, weight in pruned.weights.items():
                assert torch.equal(weight, again.weights[name]), f"the same seed gave another '{name}'"
            assert pruned.dropped_layers == again.dropped_layers, "the same seed dropped other layers"
            assert pruned.trimmed == again.trimmed, "the same seed trimmed otherwise"
            _assert_fits(first, pruned)
            _assert_trimmable(method, first, pruned)
            done = applied(first, NamedFamily(first.family, "conformance"), pruned)
            _assert_target_met(getattr(method, "target", None), first, pruned, done)
    return pruned


def _pruned(method: PruningMethod, session: Session) -> Pruned:
    session.stage.mkdir(parents=True)
    torch.manual_seed(session.seed)
    with read_only(method, session):
        return checked_pruned(method.prune(session))


def _pruned_as_in_a_sweep(method: PruningMethod, session: Session) -> Pruned:
    """Return what ``prune_all`` yields for the method's own target: it must be what ``prune`` returns."""
    target = getattr(method, "target", None)
    if not isinstance(target, Target):
        return _pruned(method, session)
    session.stage.mkdir(parents=True)
    torch.manual_seed(session.seed)
    with read_only(method, session):
        found = [checked_pruned(pruned) for pruned in method.prune_all(session, [target])]
    assert len(found) == 1, f"prune_all: expected one result for one target; got {len(found)}"
    return found[0]


def _assert_fits(session: Session, pruned: Pruned) -> None:
    """Check names, shapes and kinds; ``applied`` refuses most others."""
    units = {group.name: group.units for group in session.groups}
    parameters = dict(session.model.named_parameters())
    for name, mask in pruned.masks.keep.items():
        expected = (units[name],) if name in units else tuple(parameters[name].shape) if name in parameters else None
        assert expected is not None, f"mask '{name}': the model has no such group or parameter"
        assert tuple(mask.shape) == expected, f"mask '{name}': expected shape {expected}, got {tuple(mask.shape)}"
    for name, weight in pruned.weights.items():
        assert name in parameters, f"weight '{name}': the model has no such parameter"
        assert weight.shape == parameters[name].shape, f"weight '{name}': expected {tuple(parameters[name].shape)}"
        assert bool(weight.isfinite().all()), f"weight '{name}': expected finite numbers"
    json.dumps(pruned.metrics, allow_nan=False)


def _assert_trimmable(method: PruningMethod, session: Session, pruned: Pruned) -> None:
    if pruned.trimmed is None:
        return
    assert method.reads_texts, "reads_texts: expected True of a method that trims; train rows are read anew by it"
    tokens, known = pruned.trimmed.tokens, len(session.tokenizer)
    assert len(set(tokens)) == len(tokens), "trimmed.tokens: expected each token once"
    assert set(tokens) <= set(range(known)), f"trimmed.tokens: expected ids of the {known} tokens"
    assert pruned.trimmed.positions == method.longest, (
        f"longest: expected trimmed.positions, {pruned.trimmed.positions}; got {method.longest}"
    )
    embeddings.trimmed(session.model, tokens, pruned.trimmed.positions)


def _assert_target_met(target: object, session: Session, pruned: Pruned, done: Applied) -> None:
    if not isinstance(target, Target) or target.of_latency:
        return
    asked = getattr(target, target.amount)
    if target.sparsity is not None:
        elements = {
            name: mask for name, mask in pruned.masks.keep.items() if name in dict(session.model.named_parameters())
        }
        found, most = 1 - Masks(elements).sparsity, 1 - asked
    elif target.vocabulary is not None:
        stay = len(session.tokenizer) if pruned.trimmed is None else len(pruned.trimmed.tokens)
        found, most = stay / len(session.tokenizer), asked
    else:
        found, most = _kept(target, session, done), asked
    assert found <= most * (1 + ROUNDING) + ROUNDING, (
        f"expected at most {most:g} of {target.amount} kept; got {found:g}"
    )


def _kept(target: Target, session: Session, done: Applied) -> float:
    """Return the fraction of the target's amount that is left of the dense model."""
    models = (done.model, session.teacher)
    groups = [session.family.groups(model) for model in models]
    match target.amount:
        case "layers":
            after, before = (float(len({group.index for group in each})) for each in groups)
        case "heads":
            after, before = (float(sum(group.units for group in each if group.kind == "heads")) for each in groups)
        case "params":
            prices = parameter_prices(session.teacher, groups[1])
            after, before = (priced(prices, [(group.kind, group.units) for group in each]) for each in groups)
        case "macs":
            length = target.sequence or session.calibration.mean_length
            after, before = (encoder_macs(model, each, length) for model, each in zip(models, groups, strict=True))
        case amount:
            message = f"no conformance of target.{amount} yet"
            raise NotImplementedError(message)
    return after / before
