"""Texts that are broken, shrunk or moved to fit the axes; `_labels.Fitter` asks them to whenever these are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ._style import elided

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation, Text
    from matplotlib.transforms import Bbox

# Points; what is smaller is not read.
SMALLEST = 6.0
# Beside what it names, a text shrinks down to this share.
_LEAST_BESIDE = 0.8


class Part(Protocol):
    """What can be fitted."""

    def fit(self, axes: Axes, renderer: RendererBase, *, settled: bool) -> Bbox | None:
        """
        Fit to the axes at their present size; return the room that a layout engine must give, if any.

        Where it is `settled`, the engine has given out room already, and what changes the room needed stays.
        """


class Wrapped:
    """A title or the label of an axis: lines are broken at spaces where they are longer than the axes."""

    def __init__(self, text: Text, along: str = "x", shrink: float = 1.0) -> None:
        """Down to `shrink` times its size a text rather shrinks than gets more lines."""
        self.text, self.along, self.shrink = text, along, shrink
        self.whole = self.shown = text.get_text()
        self.size = self.shown_size = float(text.get_fontsize())

    def fit(self, axes: Axes, renderer: RendererBase, *, settled: bool) -> Bbox | None:
        """Break and shrink; a text that the user has set since stays."""
        if (self.text.get_text(), self.text.get_fontsize()) != (self.shown, self.shown_size):
            return None
        from matplotlib.transforms import Bbox

        frame = axes.get_window_extent(renderer)
        room = frame.width if self.along == "x" else frame.height
        width = _Measure(self.text, renderer, self.size)
        lines = (self.shown if settled else self.whole).split("\n")
        scale = min(1.0, room / max(width("\n".join(lines)), 1.0))
        if scale < self.shrink and not settled:
            lines = [part for line in lines for part in _broken(line, width, room / self.shrink)]
            scale = min(self.shrink, room / max(width("\n".join(lines)), 1.0))
        if settled:
            scale = min(scale, self.shown_size / self.size)
        self.shown, self.shown_size = "\n".join(lines), max(min(SMALLEST, self.size), scale * self.size)
        self.text.set_text(self.shown)
        self.text.set_fontsize(self.shown_size)
        ink = self.text.get_window_extent(renderer)
        # As for any title and label: only across, lest long ones squeeze the axes.
        if self.along == "x":
            return Bbox.from_extents(frame.x0, ink.y0, frame.x1, ink.y1)
        return Bbox.from_extents(ink.x0, frame.y0, ink.x1, frame.y1)


class Ticks:
    """Labels of whole numbers on the x axis, shrunk where they would run together."""

    def __init__(self, texts: Sequence[str], sample: Text) -> None:
        self.texts, self.sample, self.size = list(texts), sample, float(sample.get_fontsize())
        self.shown = self.size

    def fit(self, axes: Axes, renderer: RendererBase, *, settled: bool) -> None:
        """Shrink."""
        low, high = axes.get_xlim()
        room = axes.get_window_extent(renderer).width / max(abs(high - low), 1e-9)
        widest = max(_Measure(self.sample, renderer, self.size)(text) for text in self.texts)
        size = max(min(SMALLEST, self.size), self.size * min(1.0, 0.85 * room / max(widest, 1.0)))
        if size != self.shown:
            self.shown = size
            axes.tick_params(axis="x", labelsize=size)


class Beside:
    """The name of what lies between two x: right of it where there is room, else left, else above the axes."""

    def __init__(self, label: Annotation, name: str, arrow: str, low: float, high: float) -> None:
        """`arrow` is "→", "←" or ""."""
        self.label, self.name, self.arrow, self.low, self.high = label, name, arrow, low, high
        self.above = False
        self.whole, self.height = self._written(name), label.xy[1]
        self.size = float(label.get_fontsize())

    def fit(self, axes: Axes, renderer: RendererBase, *, settled: bool) -> None:
        """Choose the place and size and, where that's not enough, how much of the name is written."""
        frame, point = axes.get_window_extent(renderer), float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
        x = np.clip(axes.transData.transform([(self.low, 0.0), (self.high, 0.0)])[:, 0], frame.x0, frame.x1)
        left, right = x[0] - frame.x0 - 7.0 * point, frame.x1 - x[1] - 5.0 * point
        width = _Measure(self.label, renderer, self.size)
        whole = width(self.whole)
        on_right = right >= whole or right >= left
        room, text = max(right, left), self.whole
        if not settled:
            self.above = whole * _LEAST_BESIDE > room
        if self.above:
            room = frame.width
        size = max(min(SMALLEST, self.size), self.size * min(1.0, room / max(whole, 1.0)))
        length = len(self.name)
        while length > 5 and width(text) * size / self.size > room:
            length -= 1
            text = self._written(elided(self.name, length))
        self.label.set_text(text)
        self.label.set_fontsize(size)
        self.label.set_verticalalignment("bottom" if self.above else "center")
        if self.above:
            half, middle = 0.5 * width(text) * size / self.size, 0.5 * (x[0] + x[1])
            shift = min(max(middle, frame.x0 + half), max(frame.x1 - half, frame.x0 + half)) - middle
            self.label.set_horizontalalignment("center")
            self.label.set_position((shift / point, 2.0))
            self.label.xy = (0.5 * (self.low + self.high), 1.0)
        else:
            self.label.set_horizontalalignment("left" if on_right else "right")
            self.label.set_position((5.0 if on_right else -5.0, 0.0))
            self.label.xy = (self.high if on_right else self.low, self.height)

    def _written(self, name: str) -> str:
        return f"{self.arrow} {name}" if self.arrow == "←" else f"{name} {self.arrow}".rstrip()


class _Measure:
    """Width of texts in pixels, as one text would draw them horizontally."""

    def __init__(self, like: Text, renderer: RendererBase, size: float) -> None:
        from matplotlib.text import Text

        self.renderer = renderer
        self.probe = Text(fontproperties=like.get_fontproperties().copy(), parse_math=like.get_parse_math())
        self.probe.set_fontsize(size)
        figure = like.get_figure()
        if figure is not None:
            self.probe.set_figure(figure)

    def __call__(self, text: str) -> float:
        self.probe.set_text(text)
        return float(self.probe.get_window_extent(self.renderer).width)


def _broken(line: str, width: Any, room: float) -> list[str]:
    """A line in as many as it needs, broken at spaces (not at those that forbid it)."""
    lines: list[str] = []
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
