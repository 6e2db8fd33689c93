from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from compressor.model import Masks, PrunableGroup, shrink
from compressor.model.outputs import raw_output
from compressor.model.regrow import full_weights
from compressor.plugin import Pruned
from compressor.prune import DensePass, Shelf, Student, Teacher, fitting, record, replay, watched
from compressor.prune import teacher as teachers
from compressor.prune.solve import Correction
from compressor.prune.students import _fold, remembered
from compressor.testing import example_masks, session_on, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from tests.plugins.sessions import FAMILIES, Labelled, assert_lossless_by_tuning, labelled, make_twin

TWO_LAYOUTS = pytest.mark.parametrize("model_type", ["bert", "distilbert"])
Batches = list[dict[str, Tensor]]

NEARLY_NONE = (1e-7, 1e-5)
"""Ridges under which an exact fit is found as one."""


def batches_of(count: int = 6) -> Batches:
    """Return ragged batches of four rows."""
    return [tiny_batch(lengths=(9, 3, 12, 6), labels=False, seed=seed) for seed in range(count)]


def real_tokens(batch: Mapping[str, Tensor], _: PrunableGroup) -> Tensor:
    return batch["attention_mask"]


def teacher_on(place: Path, model: nn.Module, family: Any, batches: Batches | None = None, **options: Any) -> Teacher:
    batches = batches or batches_of()
    options.setdefault("token_weights", real_tokens)
    place.mkdir(exist_ok=True)
    shelf = Shelf(place, torch.device("cpu"))
    teacher = Teacher(model, family, batches=lambda: batches, shelf=shelf, **options)
    teacher.start()
    return teacher


def climb(teacher: Teacher, *students: Student, between: Callable[[str], None] = lambda _: None) -> None:
    for layer in teacher.layers:
        teacher.advance(layer)
        between(layer)
        for student in students:
            student.climb(layer)


def copy_of(teacher: Teacher, masks: Masks | None = None) -> nn.Module:
    return shrink(teacher.model, teacher.family, masks or Masks({}))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_state(model: nn.Module, expected: Mapping[str, Tensor], *, tolerance: float = 0.0) -> None:
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


@TWO_LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_lost_nothing_stays_as_it_is(model_type: str, dtype: torch.dtype, tmp_path: Path) -> None:
    teacher = teacher_on(tmp_path, tiny_model(model_type).to(dtype), FAMILIES[model_type])
    student = Student(teacher, copy_of(teacher), name="student")
    before = state(student.model)
    climb(teacher, student)
    assert_state(student.model, before, tolerance=1e-5)
    assert [fit.group for fit in student.fits] == [group.name for group in teacher.groups]
    assert [fit.group for fit in student.drifts] == [group.name for group in teacher.groups[1:]]
    for fit in (*student.fits, *student.drifts):
        assert fit.error_after <= fit.error_before < 1e-9


@TWO_LAYOUTS
@pytest.mark.parametrize("kind", ["ragged", "no heads", "no neurons", "one head", "nothing"])
def test_states_on_the_shelf_are_what_the_models_give(
    model_type: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "STATES", 0)
    model, family = tiny_model(model_type).double(), FAMILIES[model_type]
    teacher = teacher_on(tmp_path, model, family)
    student = Student(teacher, copy_of(teacher, example_masks(teacher.groups)[kind]), name="student")
    climb(teacher, student)
    assert_final_states(teacher, student)


def assert_final_states(teacher: Teacher, student: Student) -> None:
    for number, batch in enumerate(teacher.batches()):
        models = (("teacher", teacher.model), (student.name, student.model))
        for name, model in models[number in teacher._stored :]:
            with torch.no_grad():
                expected = model(**batch, output_hidden_states=True).hidden_states[-1]
            real = batch["attention_mask"].bool()
            torch.testing.assert_close(teacher.shelf.get(name, number)[real], expected[real], rtol=1e-9, atol=1e-9)


@TWO_LAYOUTS
@pytest.mark.parametrize("emptied", [(0,), (1,), (0, 1), (2,), (2, 3), (4, 5), (0, 1, 2, 3)])
def test_a_teacher_with_emptied_sublayers_is_followed(model_type: str, emptied: Sequence[int], tmp_path: Path) -> None:
    family = FAMILIES[model_type]
    dense = tiny_model(model_type).double()
    gone = {g.name: torch.full((g.units,), number not in emptied) for number, g in enumerate(family.groups(dense))}
    teacher = teacher_on(tmp_path, shrink(dense, family, Masks(gone)), family)
    masks = Masks({group.name: torch.arange(group.units) % 3 > 0 for group in teacher.groups})
    student = Student(teacher, copy_of(teacher, masks), name="student")
    climb(teacher, student)
    assert len(student.fits) == 6 - len(emptied)
    assert_final_states(teacher, student)
    errors = [[fit.error_before, fit.error_after] for fit in student.fits]
    assert all(after <= before for before, after in errors)


@TWO_LAYOUTS
@pytest.mark.parametrize("pruned", [False, True])
def test_remembered_attention_equals_computed_attention(*, model_type: str, pruned: bool) -> None:
    family, batch = FAMILIES[model_type], tiny_batch(labels=False)
    model = tiny_model(model_type)
    if pruned:
        keep = {group.name: torch.arange(group.units) > 0 for group in family.groups(model)}
        model = shrink(model, family, Masks(keep))
    groups = family.groups(model)
    hidden, calls = record(model, [groups[0].layer], batch)
    before = dict(model.named_modules())
    with torch.no_grad(), watched(model, [groups[0]]) as seen:
        expected = replay(model, groups[0].layer, calls[groups[0].layer], hidden)
    activations = seen[groups[0].name].activations
    ran: list[str] = []
    hook = model.get_submodule(groups[0].producers[1].module).register_forward_hook(lambda *_: ran.append("keys"))
    with hook, torch.no_grad():
        with remembered(model, groups[0], activations), watched(model, [groups[1]]) as again:
            found = replay(model, groups[0].layer, calls[groups[0].layer], hidden)
        assert ran == []
        with remembered(model, groups[0], torch.zeros_like(activations)):
            other = replay(model, groups[0].layer, calls[groups[0].layer], hidden)
    assert torch.equal(found, expected)
    assert not torch.allclose(other, expected)
    assert again[groups[1].name].residual.shape == hidden.shape
    assert dict(model.named_modules()) == before


def test_remembered_attention_is_put_back_when_the_block_fails() -> None:
    model = tiny_model("distilbert")
    group = FAMILIES["distilbert"].groups(model)[0]
    before = dict(model.named_modules())
    with pytest.raises(ZeroDivisionError), remembered(model, group, torch.zeros(1)):
        raise ZeroDivisionError
    assert dict(model.named_modules()) == before


@TWO_LAYOUTS
def test_a_remembered_ffn_equals_a_computed_one(model_type: str) -> None:
    model, family, batch = tiny_model(model_type), FAMILIES[model_type], tiny_batch(labels=False)
    group = family.groups(model)[1]
    hidden, calls = record(model, [group.layer], batch)
    before = dict(model.named_modules())
    with torch.no_grad(), watched(model, [group]) as seen:
        expected = replay(model, group.layer, calls[group.layer], hidden)
    activations = seen[group.name].activations
    ran: list[str] = []
    hook = model.get_submodule(group.producers[0].module).register_forward_hook(lambda *_: ran.append("neurons"))
    with hook, torch.no_grad():
        with remembered(model, group, activations):
            found = replay(model, group.layer, calls[group.layer], hidden)
        with remembered(model, group, torch.zeros_like(activations)):
            other = replay(model, group.layer, calls[group.layer], hidden)
    assert ran == []
    assert torch.equal(found, expected)
    assert not torch.allclose(other, expected)
    assert dict(model.named_modules()) == before


@TWO_LAYOUTS
def test_students_beside_one_another_equal_each_alone(model_type: str, tmp_path: Path) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    several = [example_masks(family.groups(model))[kind] for kind in ("ragged", "one head", "no neurons")]
    teacher = teacher_on(tmp_path / "together", model, family)
    together = [Student(teacher, copy_of(teacher, masks), name=f"s{n}") for n, masks in enumerate(several)]
    climb(teacher, *together)
    for number, masks in enumerate(several):
        single = teacher_on(tmp_path / f"alone{number}", model, family)
        alone = Student(single, copy_of(single, masks), name="alone")
        untouched = state(alone.model)
        climb(single, alone)
        assert_state(together[number].model, state(alone.model))
        assert together[number].fits == alone.fits
        assert together[number].drifts == alone.drifts
        assert any(not torch.equal(tensor, untouched[name]) for name, tensor in alone.model.state_dict().items())


def test_the_teacher_stays_as_it_is(tmp_path: Path) -> None:
    model = tiny_model()
    before = state(model)
    teacher = teacher_on(tmp_path, model, Bert())
    climb(teacher, Student(teacher, copy_of(teacher, example_masks(teacher.groups)["ragged"]), name="student"))
    assert_state(model, before)


def given(model: nn.Module, module: str, batches: Batches, *, first_only: bool = False) -> Tensor:
    """Return what a module gives for every real token, or for the first one of each row, shape (tokens, D)."""
    seen: list[Tensor] = []
    with model.get_submodule(module).register_forward_hook(lambda _, __, out: seen.append(out)), torch.no_grad():
        for batch in batches:
            raw_output(model, batch)
    if first_only:
        return torch.cat([out[:, 0] for out in seen])
    return torch.cat([out[batch["attention_mask"].bool()] for out, batch in zip(seen, batches, strict=True)])


@TWO_LAYOUTS
@pytest.mark.parametrize("emptied", [0, 1, 2, 5])
def test_an_emptied_sublayers_bias_becomes_the_mean_of_what_it_gave(
    model_type: str, emptied: int, tmp_path: Path
) -> None:
    teacher = teacher_on(tmp_path, tiny_model(model_type).double(), FAMILIES[model_type])
    group = teacher.groups[emptied]
    student = Student(
        teacher, copy_of(teacher, Masks({group.name: torch.zeros(group.units, dtype=torch.bool)})), name="s"
    )
    climb(teacher, student)
    bias: Any = student.model.get_submodule(group.consumer.module).bias
    expected = given(teacher.model, group.consumer.module, batches_of()).mean(dim=0)
    torch.testing.assert_close(bias.detach(), expected, rtol=1e-9, atol=1e-9)
    assert student.fits[emptied].accepted == "bias"


@pytest.mark.parametrize("undo_drift", [True, False])
def test_a_removed_twin_is_made_up_for_without_loss(
    *, undo_drift: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "STRONG_RIDGES", NEARLY_NONE)
    session = session_on(tiny_model().double(), Bert(), Labelled())
    group = session.groups[3]
    make_twin(session.model, group, twin=5, of=9)
    masks = {g.name: torch.ones(g.units, dtype=torch.bool) for g in session.groups}
    masks[group.name][5] = False
    teacher = teacher_on(tmp_path, session.model, session.family, list(session.calibration.batches(session.device)))
    student = Student(teacher, copy_of(teacher, Masks(masks)), name="student", undo_drift=undo_drift)
    climb(teacher, student)
    weights = full_weights(session.model, session.groups, student.model, masks)
    assert_lossless_by_tuning(session, Pruned(Masks(masks), weights, {}))
    assert bool(student.drifts) == undo_drift


@TWO_LAYOUTS
def test_students_come_closer_to_the_teacher_and_more_so_without_drift(model_type: str, tmp_path: Path) -> None:
    session = labelled(model_type, count=120)
    batches = list(session.calibration.batches(session.device))
    masks = Masks({group.name: torch.arange(group.units) % 3 > 0 for group in session.groups})
    errors = {}
    for name, undo_drift in (("plain", None), ("refitted", False), ("undrifted", True)):
        teacher = teacher_on(tmp_path / name, session.model, session.family, batches)
        student = Student(teacher, copy_of(teacher, masks), name="student", undo_drift=bool(undo_drift))
        if undo_drift is not None:
            climb(teacher, student)
        last = session.groups[-1].consumer.module
        errors[name] = float((given(student.model, last, batches) - given(teacher.model, last, batches)).square().sum())
    assert errors["undrifted"] < errors["refitted"] < 0.7 * errors["plain"]


# --- held-out rows ---


def tamper(
    teacher: Teacher, name: Literal["read", "wanted"], group: PrunableGroup, change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Change what rests on the teacher's shelf: a function of the states and of which rows are held out."""
    for visit in teacher.visits():
        changed = change(teacher.state(name, group, visit.number), visit.held)
        teacher.shelf.put(teacher.place(name, group, visit.number), visit.number, changed)


@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_correction_is_taken_only_where_it_helps_held_out_rows(
    *, kind: str, everywhere: bool, tmp_path: Path
) -> None:
    teacher = teacher_on(tmp_path, tiny_model().double(), Bert())
    student = Student(teacher, copy_of(teacher), name="student", undo_drift=False)
    before = state(student.model)
    group = next(group for group in teacher.groups if group.kind == kind)

    def between(layer: str) -> None:
        if layer == group.layer:
            tamper(teacher, "wanted", group, lambda y, held: y + (everywhere | ~held).double()[:, None, None])

    climb(teacher, student, between=between)
    fit = next(fit for fit in student.fits if fit.group == group.name)
    bias = f"{group.consumer.module}.bias"
    if everywhere:
        assert fit.accepted == "weights"
        assert fit.error_after < 1e-6 * fit.error_before
        torch.testing.assert_close(student.model.get_parameter(bias), before[bias] + 1, rtol=0, atol=1e-2)
    else:
        assert (fit.accepted, fit.ridge, fit.error_before) == ("none", None, fit.error_after)
        assert_state(student.model, before, tolerance=1e-12)


@pytest.mark.parametrize("kind", ["heads", "ffn_neurons"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_drift_is_undone_only_where_held_out_rows_confirm_it(
    *, kind: str, everywhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "STRONG_RIDGES", NEARLY_NONE)
    teacher = teacher_on(tmp_path, tiny_model().double(), Bert())
    student = Student(teacher, copy_of(teacher), name="student")
    before = copy_of(teacher)
    group = next(group for group in teacher.groups if group.kind == kind and group.index == 1)
    generator = torch.Generator().manual_seed(0)
    mix = torch.eye(32, dtype=torch.float64) + 0.1 * torch.randn(32, 32, generator=generator, dtype=torch.float64)

    def drifted(x: Tensor, held: Tensor) -> Tensor:
        return torch.where((everywhere | ~held)[:, None, None], x @ mix.T + 0.5, x)

    climb(
        teacher,
        student,
        between=lambda layer: tamper(teacher, "read", group, drifted) if layer == group.layer else None,
    )
    fit = next(fit for fit in student.drifts if fit.group == group.name)
    assert (fit.accepted == "weights") == everywhere
    x = read_before(before, group, batches_of()[0])
    for piece in group.producers:
        old, new = (each.get_submodule(piece.module) for each in (before, student.model))
        with torch.no_grad():
            torch.testing.assert_close(new(x), old(x @ mix.T + 0.5 if everywhere else x), rtol=1e-4, atol=1e-4)


def read_before(model: nn.Module, group: PrunableGroup, batch: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad(), watched(model, [group]) as seen:
        raw_output(model, batch)
    return seen[group.name].residual[batch["attention_mask"].bool()]


@pytest.mark.parametrize("biased", [True, False])
def test_a_folded_correction_is_applied_to_what_is_read(*, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(6, 4, bias=biased).double()
    x, change = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 6), (6, 6)))
    shift = torch.randn(6, generator=generator, dtype=torch.float64) * biased
    with torch.no_grad():
        expected = linear(x + x @ change.T + shift)
        _fold(linear, Correction(change, shift))
        torch.testing.assert_close(linear(x), expected)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_tokens_count_as_their_weights_say(share: float, tmp_path: Path) -> None:
    def first_tokens(batch: Mapping[str, Tensor], group: PrunableGroup) -> Tensor:
        weights = batch["attention_mask"].double()
        if group.kind == "ffn_neurons":
            weights[:, 1:] *= share
        return weights

    teacher = teacher_on(tmp_path, tiny_model().double(), Bert(), token_weights=first_tokens)
    group = teacher.groups[1]
    masks = Masks({group.name: torch.zeros(group.units, dtype=torch.bool)})
    student = Student(teacher, copy_of(teacher, masks), name="student")
    climb(teacher, student)
    bias: Any = student.model.get_submodule(group.consumer.module).bias
    first = given(teacher.model, group.consumer.module, batches_of(), first_only=True)
    every = given(teacher.model, group.consumer.module, batches_of())
    weighted = (1 - share) * first.sum(dim=0) + share * every.sum(dim=0)
    expected = weighted / ((1 - share) * len(first) + share * len(every))
    torch.testing.assert_close(bias.detach(), expected)


# --- memory ---


@pytest.fixture
def only_new_objects() -> None:
    """Hide from the garbage collector what is there already."""
    gc.collect()
    gc.freeze()


def tensor_bytes() -> int:
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) in {Tensor, nn.Parameter}]
    storages = [each.untyped_storage() for each in tensors]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def most_bytes(rows: int, place: Path) -> int:
    """Return the most bytes of tensors that a dense pass, a teacher and two students hold at the end of any pass."""
    model, family = tiny_model(num_hidden_layers=2), Bert()
    most = 0

    def batches() -> Iterator[dict[str, Tensor]]:
        nonlocal most
        for seed in range(rows // 4):
            if seed == rows // 4 - 1:
                most = max(most, tensor_bytes())
            yield tiny_batch(lengths=(8, 8, 8, 8), labels=False, seed=seed)

    place.mkdir()
    shelf = Shelf(place, torch.device("cpu"))
    teacher = Teacher(model, family, batches=batches, shelf=shelf, token_weights=real_tokens)
    dense = DensePass(model, teacher.groups, signals=lambda raw, _: raw, token_weights=real_tokens)
    teacher.start(dense.run)
    several = [example_masks(teacher.groups)[kind] for kind in ("ragged", "one head")]
    students = [Student(teacher, copy_of(teacher, masks), name=f"s{n}") for n, masks in enumerate(several)]
    climb(teacher, *students)
    assert all(statistics.rows == rows for statistics in dense.statistics.values())
    return max(most, tensor_bytes())


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("calls", [0, 600])  # less than two batches: some pass is always left to be looked into
def test_memory_does_not_grow_with_the_rows_beyond_what_calls_may_take(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "CALLS", calls)
    few, many = most_bytes(8, tmp_path / "few"), most_bytes(64, tmp_path / "many")
    one_batch_of_states = 4 * 8 * 32 * 4
    assert few > 10 * one_batch_of_states
    assert many <= few + one_batch_of_states + calls
