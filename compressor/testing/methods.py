"""Conformance of pruning methods."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from compressor.model import embeddings
from compressor.model.costs import encoder_macs, parameter_prices, priced
from compressor.model.masks import Masks
from compressor.plugin import Pruned, PruningMethod, Target, Training
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
    MACs, parameters, heads, layers or sparsity, is met. Where an option is how it trains, a training that is interrupted
    and resumed from a checkpoint gives the same.

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
            with optimizer_steps() as taken:
                pruned = _pruned(method, first)
            _assert_same(_pruned_as_in_a_sweep(method, second), pruned, "the same seed")
            _assert_resumes(method, replace(given, run_dir=Path(directory) / "resumed"), pruned, steps=len(taken))
            _assert_fits(first, pruned)
            _assert_trimmable(method, first, pruned)
            done = applied(first, NamedFamily(first.family, "conformance"), pruned)
            _assert_target_met(getattr(method, "target", None), first, pruned, done)
    return pruned


def _assert_same(found: Pruned, expected: Pruned, what: str) -> None:
    assert found.masks == expected.masks, f"{what} gave other masks"
    assert found.weights.keys() == expected.weights.keys(), f"{what} gave other weights"
    for name, weight in expected.weights.items():
        assert torch.equal(weight, found.weights[name]), f"{what} gave another '{name}'"
    assert found.dropped_layers == expected.dropped_layers, f"{what} dropped other layers"
    assert found.trimmed == expected.trimmed, f"{what} trimmed otherwise"


class Interruption(BaseException):
    """Ends a training, as a key or a signal would: nothing catches it on the way."""


@contextmanager
def optimizer_steps(*, last: int | None = None) -> Iterator[list[int]]:
    """Count the steps of all optimizers.

    Args:
        last: step after which the training is interrupted.
    """
    taken: list[int] = []

    def count(*_: Any) -> None:
        taken.append(len(taken) + 1)
        if taken[-1] == last:
            raise Interruption

    hook = register_optimizer_step_post_hook(count)
    try:
        yield taken
    finally:
        hook.remove()


def _assert_resumes(method: PruningMethod, session: Session, expected: Pruned, *, steps: int) -> None:
    """Interrupt a method's training in the middle, and check that it goes on from its checkpoint to the same bits."""
    often = {
        name: value.model_copy(update={"checkpoint_every": 1})
        for name in type(method).model_fields
        if isinstance(value := getattr(method, name), Training)
    }
    if not often or steps < 2:  # noqa: PLR2004 - a step before, and one after
        return
    saving = method.model_copy(update=often)
    with suppress(Interruption), optimizer_steps(last=steps // 2 + 1):
        _pruned(saving, session)
    _assert_same(_pruned(saving, session), expected, "a training that was interrupted and resumed")


def _pruned(method: PruningMethod, session: Session) -> Pruned:
    session.stage.mkdir(parents=True, exist_ok=True)
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
