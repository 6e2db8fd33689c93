"""Inline SVG by hand: elements, linear scales with round ticks, and labels that keep out of each other's way.

Elements carry classes, not colours: the page's style sheet has those, for light, dark and paper. Text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER = 6.4
"""Width of a character of a label, in units of the picture: a little more than the mean of a sans-serif at 12."""
LINE = 14.0
FLAT = 1e-6
"""Values that differ by less than this part of themselves are drawn as one: ticks between them would need too many digits."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def element(name: str, *content: str, **attributes: str | float) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: other elements, or text, which is escaped.
        attributes: ``text_anchor`` is written ``text-anchor`` and ``class_`` is written ``class``; numbers are rounded.
    """
    words = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else _short(value))
        for key, value in attributes.items()
    ]
    inside = Markup("").join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(words), inside)


def picture(width: float, height: float, *content: Markup, label: str) -> Markup:
    """Return a whole SVG, which scales to the width of its place.

    Args:
        width: in units of the picture, which are about pixels.
        height: in the same.
        content: elements.
        label: what it shows, in words.
    """
    box = f"0 0 {_short(width)} {_short(height)}"
    return element("svg", element("title", label), *content, viewBox=box, role="img", style=f"max-width:{width:.0f}px")


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "label") -> Markup:
    """Return a line of text whose baseline is at ``y``."""
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle with slightly round corners."""
    return element("rect", x=x, y=y, width=max(width, 0.0), height=height, rx=1.5, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Scale:
    """A linear map from values to places.

    Attributes:
        low: value that is shown at ``start``.
        high: value that is shown at ``end``.
        start: place, in units of the picture.
        end: place.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """Return a scale that shows all of the values with some space around them, also where they are all one."""
        low, high = min(values), max(values)
        flat = high - low < FLAT * max(abs(low), abs(high))
        margin = (0.05 * abs(high) if flat else 0.08 * (high - low)) or 1.0
        return cls(low - margin, high + margin, start, end)

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Return round values within the scale, at most so many, each with its words."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in STEPS if step * power >= rough * (1 - 1e-9))
        decimals = next(count for count in range(12) if abs(round(step, count) - step) < step * 1e-6)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(number * step, f"{number * step:.{decimals}f}") for number in range(first, last + 1)]


@dataclass(frozen=True)
class Box:
    """A rectangle that something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Tell whether two boxes overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not apart and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        """Tell whether the other one lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


def place_labels(labels: Sequence[tuple[float, float, str]], frame: Box, taken: Sequence[Box]) -> list[Box]:
    """Return a box for each label near its point, inside the frame and off what is taken, where there is room.

    Args:
        labels: x, y and words; earlier ones choose first.
        frame: of the picture.
        taken: what the points cover.
    """
    found: list[Box] = []
    for x, y, words in labels:
        width = CHARACTER * len(words)
        inside = [box for box in _around(x, y, width) if frame.holds(box)]
        free = (box for box in inside if not any(box.meets(other) for other in (*taken, *found)))
        readable = (box for box in inside if not any(box.meets(other) for other in found))
        found.append(next(free, None) or next(readable, None) or next(_around(x, y, width)))
    return found


def _around(x: float, y: float, width: float) -> Iterator[Box]:
    """Yield boxes right of, left of, above and below a point, then the same further away."""
    for far in (8.0, 18.0, 30.0, 44.0, 60.0, 78.0):
        for up in (-far + 1.0, far + LINE - 3.0):
            for left in (x + 6.0, x - 6.0 - width, x - width / 2):
                yield Box(left, y + up - LINE, left + width, y + up)
        if far == 8.0:  # noqa: PLR2004 - beside the point, once
            for left in (x + 10.0, x - 10.0 - width):
                yield Box(left, y - LINE / 2, left + width, y + LINE / 2)
