"""The table of a sweep: what is on the front, and what is shown of what was measured."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from compressor.verify.pareto import failed_row, family, front, pareto_section, row
from compressor.verify.report import render, sweep_card
from compressor.verify.spreadsheet import spreadsheet
from tests.verify.reports import latency, spread


def model(score: float | None, ratio: float | None) -> dict[str, Any]:
    return {"score": score, "latency": [] if ratio is None else [{"ratio": {"value": ratio}}]}


@pytest.mark.parametrize(
    ("models", "marks"),
    [
        ([(0.9, 1.0), (0.8, 0.5)], [True, True]),
        ([(0.9, 1.0), (0.9, 0.5)], [False, True]),
        ([(0.9, 1.0), (0.91, 0.8), (0.85, 0.6), (0.84, 0.7), (0.5, 0.3)], [False, True, True, False, True]),
        ([(0.9, 1.0), (0.8, 1.0)], [True, False]),
        ([(0.9, 0.5), (0.9, 0.5)], [True, True]),
        ([(0.9, 1.0), (None, 0.5), (0.8, None)], [True, None, None]),
    ],
)
def test_the_front_is_what_nothing_else_dominates(models: list[tuple[Any, Any]], marks: list[bool | None]):
    assert front([model(*one) for one in models]) == marks


def report(kept: float, accuracy: float, ratio: float, **judged: Any) -> dict[str, Any]:
    other = {**latency("compressed", ratio), "sequence": 8}
    dense = 0.8775
    return {
        "recipe": {"task": {"name": "glue"}},
        "inputs": {"weights_sha256": judged.get("weights", "b")},
        "model": {
            "parameters": {"dense": 1000, "compressed": 1000 * kept},
            "encoder_macs": {"dense": 2000.0, "compressed": 2000.0 * kept, "sequence": 12.5},
            "bytes": {"dense": 4_000_000, "compressed": 4_000_000 * kept},
        },
        "quality": {
            "metric": judged.get("metric", "accuracy"),
            **{name: judged[name] for name in ("metric_options",) if name in judged},
            "rows_sha256": judged.get("rows", "a"),
            "dense": {"accuracy": dense, "f1": 0.1},
            "compressed": {"accuracy": accuracy, "f1": 0.2},
            "difference": spread(accuracy - dense, 0.01),
            "churn": 0.25,
            "kl": 0.0123,
        },
        "latency": [
            latency("dense", 1.0),
            latency("compressed", ratio),
            {**latency("dense", 1.0), "sequence": 8},
            other,
            {**latency("compressed", 9.0), "threads": 2},
            {**latency("compressed", 9.0), "slow_fusion": True},
        ],
        "gates": [{"verdict": "pass"}, {"verdict": "inconclusive"}],
        "environment": {},
        "passed": True,
    }


POINTS = {
    "macs-0.8": ({"macs": 0.8}, report(0.8, 0.88, 0.85)),
    "macs-0.4": ({"macs": 0.4}, report(0.4, 0.85, 0.45)),
}


def sweep(rows: list[dict[str, Any]]) -> dict[str, Any]:
    asked = {"name": "toy", "path": "steps.0.prune.target.macs", "model": "owner/model", "task": "glue"}
    return {"sweep": asked, "rows": rows, "passed": True}


def test_dense_comes_first_then_baselines_then_the_points_in_order():
    int8 = row("int8", report(1.0, 0.87, 0.6))
    rows = family(POINTS, [int8])
    assert [(one["name"], one["settings"], one["pareto"]) for one in rows] == [
        ("dense", None, False),
        ("int8", None, True),
        ("macs-0.8", {"macs": 0.8}, True),
        ("macs-0.4", {"macs": 0.4}, True),
    ]
    dense, point = rows[0], rows[3]
    assert (dense["encoder_macs"], dense["score"], dense["difference"]) == (1.0, 0.8775, None)
    assert (point["encoder_macs"], point["bytes"], point["agreement"]) == (0.4, 1_600_000, 0.75)
    assert [each["ratio"]["value"] for each in point["latency"]] == [0.45, 0.45]
    assert point["verdict"] == "inconclusive"


def test_a_baseline_that_is_faster_and_better_takes_a_point_off_the_front():
    rows = family(POINTS, [row("int8", report(1.0, 0.86, 0.4))])
    assert [one["pareto"] for one in rows] == [False, True, True, False]


@pytest.mark.parametrize("other", [{"rows": "c"}, {"weights": "c"}, {"metric": "f1"}, {"metric_options": {"of": 2}}])
def test_points_that_were_not_compared_with_one_dense_model_have_no_front(other: dict[str, Any]):
    """Even where the dense figures are equal by chance, as all of them are for embeddings."""
    points = {
        "seed-0": ({"seed": 0}, report(0.8, 0.88, 0.85)),
        "seed-1": ({"seed": 1}, report(0.8, 0.88, 0.85, **other)),
    }
    rows = family(points)
    assert [one["name"] for one in rows] == ["dense", "dense of seed-1", "seed-0", "seed-1"]
    assert {one["pareto"] for one in rows} == {None}
    assert (
        "No front: the points do not share one dense model, its rows, the metric, the first timed shape, "
        "and the machine" in sweep_card(sweep(rows))
    )


@pytest.mark.parametrize(
    ("changed", "titles"),
    [
        ({"sequence": 64}, ["latency 1 x 128", "latency 1 x 64"]),
        ({"threads": 2}, ["latency 1 x 128, 1 thread", "latency 1 x 128, 2 threads"]),
        ({"provider": "cuda"}, ["latency 1 x 128, 1 thread", "latency 1 x 128, cuda"]),
    ],
)
def test_points_that_were_timed_otherwise_have_no_front_and_columns_of_their_own(
    changed: dict[str, Any], titles: list[str]
):
    points = {name: (value, {**found, "latency": found["latency"][:2]}) for name, (value, found) in POINTS.items()}
    value, found = points["macs-0.4"]
    points["macs-0.4"] = (value, {**found, "latency": [{**one, **changed} for one in found["latency"]]})
    table = pareto_section(sweep(family(points)))
    assert [title for title in table.columns if title.startswith("latency")] == titles
    assert [row[table.columns.index(titles[0]) :][:2] for row in table.rows] == [
        ("1.000", ""),
        ("0.850 [0.840, 0.860]", ""),
        ("", "0.450 [0.440, 0.460]"),
    ]
    assert "front" not in table.columns
    assert table.notes[0].startswith("No front")


def test_points_that_were_timed_on_different_machines_have_no_front():
    settings, found = POINTS["macs-0.4"]
    rows = family({**POINTS, "macs-0.4": (settings, {**found, "environment": {"cpu": "another"}})})
    assert {one["pareto"] for one in rows} == {None}


FAILED = failed_row(
    "macs-0.1", settings={"macs": 0.1}, error={"kind": "InputError", "message": "out\nof reach", "exit_code": 2}
)


def test_a_point_that_failed_has_every_figure_of_one_that_did_not_and_none_of_them_is_known():
    done = family(POINTS)[-1]
    assert {*FAILED} == {*done, "error"}
    known = {"name": "macs-0.1", "settings": {"macs": 0.1}, "error": FAILED["error"], "latency": []}
    assert {**dict.fromkeys(done), **known} == FAILED


def test_a_point_that_failed_is_listed_with_its_reason():
    table = pareto_section(sweep([*family(POINTS), FAILED]))
    assert table.rows[-1] == ("macs-0.1", *[""] * (len(table.columns) - 3), "failed", "")
    assert table.notes[1] == "macs-0.1 failed: out; of reach"


def test_the_csv_has_one_row_per_point_and_one_figure_per_cell():
    lines = list(csv.DictReader(io.StringIO(spreadsheet(sweep([*family(POINTS), FAILED])))))
    assert [line["name"] for line in lines] == ["macs-0.8", "macs-0.4", "macs-0.1"]
    point, failed = lines[1], lines[2]
    expected = {
        "macs": "0.4", "encoder_macs": "0.4", "bytes": "1600000.0", "metric": "accuracy", "score": "0.85",
        "latency_1x128_1_thread": "0.45", "latency_1x8_1_thread": "0.45", "kl": "0.0123",
        "gates": "inconclusive", "pareto": "true", "directory": "macs-0.4", "failure": "",
    }  # fmt: skip
    assert {name: point[name] for name in expected} == expected
    for name in ("difference", "latency_1x128_1_thread"):
        assert float(point[f"{name}_lower"]) < float(point[name]) < float(point[f"{name}_upper"])
    assert (failed["macs"], failed["score"], failed["failure"]) == ("0.1", "", "out\nof reach")


def test_the_card_has_one_table_of_everything():
    lines = sweep_card(sweep(family(POINTS))).splitlines()
    assert lines[0] == "# toy: a family over `steps.0.prune.target.macs`"
    assert (
        "| model | MACs | parameters | ONNX MB | accuracy | change | KL | agreement | latency 1 x 128 | latency 1 x 8 "
        "| gates | front |"
    ) in lines
    assert (
        "| macs-0.4 | 0.4000 | 0.4000 | 1.60 | 0.8500 | -0.0275 [-0.0375, -0.0175] | 0.0123 | 75.0% "
        "| 0.450 [0.440, 0.460] | 0.450 [0.440, 0.460] | inconclusive | yes |"
    ) in lines
    assert any("at least as good in accuracy and in latency at 1 x 128" in line for line in lines)


def test_the_screen_has_it_in_parts_that_fit():
    screen = io.StringIO()
    render(sweep(family(POINTS)), Console(file=screen, width=80))
    lines = screen.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    for name in ("size and front", "quality", "latency, ratio to dense"):
        assert f"Family over steps.0.prune.target.macs: {name}" in lines


def test_without_a_verify_step_sizes_are_left():
    whole = report(0.5, 0, 1)
    sizes = {key: whole[key] for key in ("recipe", "inputs")}
    sizes["model"] = {key: whole["model"][key] for key in ("parameters", "encoder_macs")}
    found = pareto_section(sweep(family({"macs-0.5": ({"macs": 0.5}, sizes)})))
    assert found.columns == ("model", "MACs", "parameters")
    assert found.rows == [("dense", "1.0000", "1.0000"), ("macs-0.5", "0.5000", "0.5000")]
    assert found.notes == ()
