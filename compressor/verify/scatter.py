"""The metric against latency, with intervals, as a picture. Plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compressor.verify.svg import LINE, Box, Scale, element, line, picture, place_labels, text

WIDTH, HEIGHT = 470.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 458.0, 14.0, 262.0
"""The frame in which points lie."""
RADIUS = 5.0
Spread = tuple[float, float, float]
"""A value with the lower and the upper end of its interval, which may be the value itself."""


@dataclass(frozen=True)
class Point:
    """A model under some options.

    Attributes:
        label: said beside it; empty where another point says it.
        x: latency.
        y: metric.
        class_: a class of the style sheet, which gives the colour.
        hollow: drawn as a ring.
    """

    label: str
    x: Spread
    y: Spread
    class_: str
    hollow: bool = False


def scatter(points: Sequence[Point], *, x_title: str, y_title: str, path: Sequence[Point] = ()) -> Markup:
    """Draw points with their intervals.

    Args:
        points: at least one; dots lie on top of rings.
        x_title: below the picture; less is better.
        y_title: above the axis; more is better.
        path: points that a line connects, as the Pareto front's.
    """
    across = Scale.over([value for point in points for value in point.x], LEFT, RIGHT)
    up = Scale.over([value for point in points for value in point.y], BOTTOM, TOP)
    parts = [*_axes(across, up, x_title, y_title)]
    places = sorted((across(point.x[0]), up(point.y[0])) for point in path)
    if len(places) > 1:
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(element("polyline", points=words, class_="front"))
    for point in points:
        parts.extend(_intervals(point, across, up))
    parts += [_mark(point, across, up) for point in sorted(points, key=lambda point: not point.hollow)]
    parts += _labels(points, across, up)
    said = "; ".join(f"{point.label}: {point.y[0]:.4g} at {point.x[0]:.3g}" for point in points if point.label)
    return picture(WIDTH, HEIGHT, *parts, label=f"{y_title} against {x_title}. {said}")


def _axes(across: Scale, up: Scale, x_title: str, y_title: str) -> Iterator[Markup]:
    for value, words in up.ticks(5):
        yield line(LEFT, up(value), RIGHT, up(value), "grid")
        yield text(LEFT - 6, up(value) + 4, words, anchor="end", class_="tick")
    for value, words in across.ticks(6):
        yield line(across(value), TOP, across(value), BOTTOM, "grid")
        yield text(across(value), BOTTOM + 17, words, anchor="middle", class_="tick")
    yield line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
    yield line(LEFT, TOP, LEFT, BOTTOM, "axis")
    yield text((LEFT + RIGHT) / 2, BOTTOM + 38, x_title, anchor="middle")
    middle = (TOP + BOTTOM) / 2
    turned = f"rotate(-90 13 {middle:.0f})"
    yield element("text", y_title, x=13, y=middle, text_anchor="middle", class_="label", transform=turned)


def _intervals(point: Point, across: Scale, up: Scale) -> Iterator[Markup]:
    (x, low, high), (y, bottom, top) = point.x, point.y
    style = f"interval {point.class_}"
    if low < high:
        yield line(across(low), up(y), across(high), up(y), style)
    if bottom < top:
        yield line(across(x), up(bottom), across(x), up(top), style)


def _mark(point: Point, across: Scale, up: Scale) -> Markup:
    style = f"{'ring' if point.hollow else 'dot'} {point.class_}"
    return element("circle", cx=across(point.x[0]), cy=up(point.y[0]), r=RADIUS + point.hollow, class_=style)


def _labels(points: Sequence[Point], across: Scale, up: Scale) -> list[Markup]:
    named = [point for point in points if point.label]
    marks = [(across(point.x[0]), up(point.y[0])) for point in points]
    taken = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in marks]
    taken += [
        Box(across(low), up(y) - 1, across(high), up(y) + 1)
        for point in points
        for (_, low, high), y in [(point.x, point.y[0])]
    ]
    wanted = [(across(point.x[0]), up(point.y[0]), point.label) for point in named]
    boxes = place_labels(wanted, Box(LEFT, TOP - LINE, RIGHT + 8, BOTTOM), taken)
    return [
        text((box.left + box.right) / 2, box.bottom - 3, point.label, anchor="middle", class_=f"name {point.class_}")
        for point, box in zip(named, boxes, strict=True)
    ]
