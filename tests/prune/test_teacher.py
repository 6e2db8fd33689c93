from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.prune import LayerCall, Student
from compressor.prune import teacher as teachers
from compressor.prune.fitting import HELD_OUT
from compressor.prune.teacher import Visit
from compressor.testing import example_masks, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from tests.plugins.sessions import FAMILIES
from tests.prune.test_students import TWO_LAYOUTS, assert_state, climb, copy_of, state, teacher_on


def test_every_eighth_row_is_held_out_whatever_the_batches(tmp_path: Path) -> None:
    rows = tiny_batch(lengths=(5,) * 24, labels=False)
    for size in (3, 8, 24):
        batches = [{k: v[first : first + size] for k, v in rows.items()} for first in range(0, 24, size)]
        teacher = teacher_on(tmp_path, tiny_model(), Bert(), batches)
        held = torch.cat([visit.held for visit in teacher.visits()])
        assert held.nonzero().flatten().tolist() == [7, 15, 23]
    assert HELD_OUT == 8


@TWO_LAYOUTS
@pytest.mark.parametrize(("states", "calls"), [(0, 0), (0, 1 << 30), (1 << 30, 0), (100_000, None)])
def test_room_changes_what_is_run_again_and_nothing_else(
    model_type: str, states: int, calls: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Student] = []
    for name in ("as it is", "changed"):
        if found:
            one = found[0].teacher._visits[0].size  # what is in a call depends on the version of transformers
            monkeypatch.setattr(teachers, "STATES", states)
            monkeypatch.setattr(teachers, "CALLS", one if calls is None else calls)
        teacher = teacher_on(tmp_path / name, tiny_model(model_type), FAMILIES[model_type])
        student = Student(teacher, copy_of(teacher, example_masks(teacher.groups)["ragged"]), name="student")
        climb(teacher, student)
        found.append(student)
        numbers = [len(teacher._stored), len(teacher._visits)]
    assert numbers == [{0: 0, 1 << 30: 6}.get(room, 1) for room in (states, calls)]
    assert_state(found[1].model, state(found[0].model))
    assert found[1].fits == found[0].fits


def test_a_visit_counts_what_its_layers_share_once() -> None:
    shared, own = torch.zeros(10), torch.zeros(4)
    calls = {
        "a": LayerCall((shared, None), {"mask": own}, gives_tuple=True),
        "b": LayerCall(((shared, shared[:3]),), {"flag": True}, gives_tuple=True),
    }
    assert Visit(0, {"input_ids": torch.zeros(5)}, calls, torch.zeros(2)).size == 4 * (10 + 4 + 5 + 2)
