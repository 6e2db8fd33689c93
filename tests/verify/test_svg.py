"""Pictures: scales, labels, and what is drawn of a report."""

from __future__ import annotations

import re

import pytest

from compressor.verify.pictures import layers_picture, pareto_picture, timings_picture, tradeoff_pictures
from compressor.verify.scatter import Point, scatter
from compressor.verify.svg import Box, Scale, element, place_labels
from tests.verify.reports import full_report, latency, run_report, spread


def test_text_and_attributes_are_escaped():
    assert element("text", "<b> & co", class_='a"b') == '<text class="a&#34;b">&lt;b&gt; &amp; co</text>'
    assert element("g", element("rect", rx=1.5, x=2.0, fill_opacity=0.25)) == (
        '<g><rect rx="1.5" x="2" fill-opacity="0.2"></rect></g>'
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.7321, 0.8123, ["0.74", "0.76", "0.78", "0.80"]),
        (-3.0, 112.0, ["0", "25", "50", "75", "100"]),
        (0.88749, 0.88751, ["0.887490", "0.887495", "0.887500", "0.887505", "0.887510"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, words: list[str]):
    assert [text for _, text in Scale(low, high, 0.0, 100.0).ticks(5)] == words


@pytest.mark.parametrize("values", [[0.5], [0.0], [0.5, 0.5, 0.5], [-1.0, 2.0]])
def test_a_scale_shows_every_value_with_space_around(values: list[float]):
    scale = Scale.over(values, 10.0, 110.0)
    assert all(10.0 < scale(value) < 110.0 for value in values)
    assert scale.ticks(5)


def test_labels_keep_off_each_other_and_off_points():
    frame, crowd = Box(0, 0, 460, 300), [(200.0 + 9 * number, 150.0, f"model number {number}") for number in range(6)]
    points = [Box(x - 5, y - 5, x + 5, y + 5) for x, y, _ in crowd]
    boxes = place_labels(crowd, frame, points)
    assert all(frame.holds(box) for box in boxes)
    assert not any(one.meets(other) for one in boxes for other in (*boxes, *points) if one is not other)


def test_a_label_without_room_is_drawn_all_the_same():
    assert len(place_labels([(5.0, 5.0, "a long label")], Box(0, 0, 10, 10), [])) == 1


def test_the_axes_show_less_time_on_the_left_and_more_metric_above():
    fast = Point("fast", (0.3, 0.28, 0.33), (0.7, 0.68, 0.72), "compressed")
    good = Point("good", (1.0, 1.0, 1.0), (0.8, 0.8, 0.8), "dense", hollow=True)
    drawn = scatter([fast, good], x_title="time", y_title="accuracy", path=[good, fast])
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="\d" class="(\w+) (\w+)">', drawn)
    (ring, dot) = marks
    assert (ring[2:], dot[2:]) == (("ring", "dense"), ("dot", "compressed"))
    assert float(dot[0]) < float(ring[0])
    assert float(dot[1]) > float(ring[1])
    assert drawn.count("interval") == 2
    assert drawn.count("polyline") == 2


def test_layers_are_drawn_as_counts_and_a_dropped_one_says_so():
    drawn = layers_picture(full_report()["layers"])
    assert drawn.count('class="kept"') == 11 + 1
    assert drawn.count('class="gone"') == 1 + 1
    for words in ("11 / 12", "672 / 1,536", "dropped as a whole", "attention heads: 11 of 24"):
        assert words in drawn


def test_a_layer_without_ffn_groups_is_drawn():
    assert "FFN" not in layers_picture([{"layer": 0, "heads": {"kept": 0, "of": 0}, "dropped": False}])


def test_timings_are_in_proportion():
    widths = re.findall(r'width="([\d.]+)" height="13"', timings_picture(full_report()["steps"]))
    assert [float(width) for width in widths] == [300.0, 100.0]
    assert "75.0 s, 75%" in timings_picture(full_report()["steps"])
    assert timings_picture([{"slug": "01-prune", "seconds": 0.0}])


def test_every_shape_has_a_picture_with_the_free_files_under_both_options():
    drawn = dict(tradeoff_pictures(full_report()))
    assert list(drawn) == ["1 x 32, 1 thread", "1 x 128, 1 thread"]
    for picture in drawn.values():
        assert picture.count("<circle") == 10
        assert picture.count('class="ring dense"') == picture.count('class="dot dense-int8"') == 1
        for name in ("dense", "dense int8", "compressed", "compressed fused", "compressed int8"):
            assert picture.count(f">{name}</text>") == 1
        assert "ratio to the best dense" in picture


def test_ratios_without_one_denominator_are_not_mixed():
    ((_, picture),) = tradeoff_pictures(run_report())
    assert picture.count("<circle") == 2, "only rows under the tuned options have one denominator"


def test_nothing_is_drawn_of_what_was_not_measured():
    report = run_report()
    assert not list(tradeoff_pictures({**report, "quality": None}))
    assert not list(tradeoff_pictures({**report, "latency": []}))


def swept(name: str, ratio: float, score: float, *, pareto: bool) -> dict[str, object]:
    gap = None if name == "dense" else spread(score - 0.8, 0.01)
    row = {"name": name, "metric": "accuracy", "score": score, "difference": gap, "pareto": pareto}
    return {**row, "latency": [latency(name, ratio)]}


def test_the_front_of_a_sweep_is_connected():
    rows = [
        swept("dense", 1.0, 0.8, pareto=True),
        swept("macs-0.6", 0.6, 0.79, pareto=True),
        swept("bad", 0.7, 0.5, pareto=False),
    ]
    drawn = pareto_picture({"rows": rows})
    assert drawn is not None
    (front,) = re.findall(r'<polyline points="([^"]*)"', drawn)
    assert len(front.split()) == 2
    assert drawn.count('class="ring compressed"') == 1
    assert pareto_picture({"rows": [{**rows[0], "latency": []}]}) is None
    assert "ring" not in str(pareto_picture({"rows": [{**row, "pareto": None} for row in rows]}))
