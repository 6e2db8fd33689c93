"""Conformance of criteria and patterns."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compressor.model.blocks import Blocks
from compressor.plugin import Criterion, CriterionRun, Registry, SparsityPattern
from compressor.testing.declarations import assert_declaration_conforms, asserted

SHAPES: Mapping[str, tuple[int, int]] = {"first": (6, 4), "second": (3, 8)}
KNOWN_NEEDS = frozenset({"gradients", "activations"})
Shown = Mapping[str, Mapping[str, Tensor]]


def assert_criterion_conforms(criterion: Criterion) -> None:
    """Assert that a criterion keeps its contract: a plugin author's one-line test.

    Scores are finite, one per element, and the same when the same is shown again; what it is shown stays as it is; a
    weight of which nothing was seen has no score; a saved state is tensors that do not change afterwards, and a run
    that is resumed from it, after one batch or after several, goes on as if nothing had been.
    """
    assert_declaration_conforms(criterion)
    needs = type(criterion).needs
    assert needs <= KNOWN_NEEDS, f"needs: expected some of {sorted(KNOWN_NEEDS)}; got {sorted(needs)}"
    first, *more = (_shown(needs, seed=seed) for seed in range(4))
    with asserted(criterion):
        whole, again = _start(criterion), _start(criterion)
        _observe(whole, first)
        _observe(again, first)
        scores = whole.scores()
        assert set(scores) == set(SHAPES), f"expected scores of {sorted(SHAPES)}; got {sorted(scores)}"
        for name, values in scores.items():
            assert tuple(values.shape) == SHAPES[name], f"{name}: expected {SHAPES[name]}; got {tuple(values.shape)}"
            assert bool(values.isfinite().all()), f"{name}: expected finite scores"
        _assert_equal(again.scores(), scores, "the same observations gave other scores")
        for count in (1, 2):
            _assert_resumes(criterion, (first, *more)[:count], more[count:])
        _assert_nothing_unseen(criterion, first)


def _assert_resumes(criterion: Criterion, before: Sequence[Shown], after: Sequence[Shown]) -> None:
    """Check a run that is resumed between two batches: what it forgets may show later than in the first one."""
    whole, interrupted = _start(criterion), _start(criterion)
    for run in (whole, interrupted):
        for shown in before:
            _observe(run, shown)
    held = interrupted.state_dict()
    assert all(isinstance(value, Tensor) for value in held.values()), "expected a state of tensors"
    saved = {name: value.clone() for name, value in held.items()}
    resumed = _start(criterion)
    resumed.load_state_dict(saved)
    for shown in after:
        for run in (whole, interrupted, resumed):
            _observe(run, shown)
        _assert_equal(held, saved, "a saved state changed when the run went on")
        _assert_equal(resumed.scores(), whole.scores(), "a resumed run gave other scores")


def _assert_nothing_unseen(criterion: Criterion, shown: Shown) -> None:
    run = criterion.start({**SHAPES, "unseen": (2, 2)})
    _observe(run, shown)
    assert "unseen" not in run.scores(), "a weight of which nothing was seen has a score"


def _start(criterion: Criterion) -> CriterionRun:
    return criterion.start(dict(SHAPES))


def _observe(run: CriterionRun, shown: Shown) -> None:
    before = {part: {name: value.clone() for name, value in values.items()} for part, values in shown.items()}
    run.observe(weights=shown["weights"], gradients=shown["gradients"], activations=shown["activations"])
    for part, values in before.items():
        _assert_equal(shown[part], values, f"observe changed the {part} that it was shown")


def _shown(needs: frozenset[str], *, seed: int) -> Shown:
    generator = torch.Generator().manual_seed(seed)
    parts = {
        "weights": SHAPES,
        "gradients": SHAPES,
        "activations": {name: (5 + 2 * number, shape[1]) for number, (name, shape) in enumerate(SHAPES.items())},
    }
    return {
        part: {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        if part == "weights" or part in needs
        else {}
        for part, shapes in parts.items()
    }


def _assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], message: str) -> None:
    assert found.keys() == expected.keys(), message
    assert all(torch.equal(found[name], expected[name]) for name in expected), message


def assert_pattern_conforms(pattern: SparsityPattern, shape: tuple[int, int] = (64, 64)) -> None:
    """Assert that a pattern keeps its contract: a plugin author's one-line test.

    Its label, where it is spelled as one text, reads back to an equal pattern; the blocks of a weight that divides cover
    it, and what goes of them at most is what the pattern says; a shape that does not divide gives None, not an error.

    Args:
        pattern: with its options.
        shape: (out, in) of a weight that divides.
    """
    assert_declaration_conforms(pattern)
    with asserted(pattern):
        assert pattern.label.strip(), "expected a label, as people write the pattern"
        cls = Registry.load().spelled("pattern", pattern.label)
        if cls is type(pattern):
            assert cls.model_validate(cls.spelled(pattern.label)) == pattern, f"'{pattern.label}' is another pattern"
        assert 0 < pattern.most <= 1, f"most: expected a fraction in (0, 1]; got {pattern.most}"
        assert pattern.use.strip(), "expected a sentence that says what the zeros are good for"
        blocks = pattern.blocks(shape)
        assert isinstance(blocks, Blocks), f"expected Blocks for shape {shape}; got {blocks!r}"
        assert shape[0] % blocks.rows == 0 and shape[1] % blocks.columns == 0, f"{blocks} do not cover {shape}"  # noqa: PT018 - one claim
        share = blocks.dropped / blocks.size
        assert math.isclose(share, pattern.most), f"{blocks} drop {share:g} of a weight; expected {pattern.most:g}"
        other = pattern.blocks((shape[0] + 1, shape[1] + 1))
        assert other is None or isinstance(other, Blocks), f"expected Blocks or None; got {other!r}"
