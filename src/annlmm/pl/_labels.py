"""Text that is placed, broken and shrunk each time the figure is drawn. Imports matplotlib: import it late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox, IdentityTransform

from ._style import elided

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation
    from numpy.typing import NDArray

    from ._fit import Part

Box = tuple[float, float, float, float]
# A label is left out rather than drawn where it is not read: so many heights from its point, over so large a share of points.
_FARTHEST = 5.0
_MOST_COVERED = 0.35


def label_points(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    texts: Sequence[str],
    *,
    avoid: NDArray[np.float64],
    color: Any,
    fontsize: float | str = "small",
    max_length: int = 24,
    radii: Sequence[float] | None = None,
    walls: Sequence[float] = (),
) -> list[Annotation]:
    """
    Label points so that no two labels overlap and none leaves the axes.

    The places are found greedily, the first label first, whenever the figure is drawn: they stay right when the figure
    is resized, zoomed or saved at another resolution. A label that finds no place is not drawn.

    Parameters
    ----------
    ax
        Axes.
    x, y
        Points in data coordinates, each of shape (k,), the most important first.
    texts
        k labels; the middle of one longer than `max_length` is elided.
    avoid
        Points that labels should not cover, in data coordinates, shape (m, 2).
    color
        Colour of text and leader lines.
    fontsize
        Size of the text.
    max_length
        Longest text shown in full.
    radii
        Of the marker of each labelled point, in points (typographic); None: 2.
    walls
        Vertical lines (x in data coordinates) that a label crosses only where it has no other place.

    Returns
    -------
    The k annotations, which are also in `ax.texts`.
    """
    labels = [
        ax.annotate(
            elided(text, max_length),
            xy=(x_i, y_i),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="bottom",
            annotation_clip=True,
            parse_math=False,
            color=color,
            fontsize=fontsize,
            zorder=6,
            in_layout=False,
        )
        for x_i, y_i, text in zip(x.tolist(), y.tolist(), texts, strict=True)
    ]
    ax.add_artist(Leaders(labels, avoid, [2.0] * len(labels) if radii is None else radii, walls, color=color))
    return labels


class Leaders(LineCollection):
    """Lines from labels to their points. Drawn before the labels, it places them first."""

    def __init__(
        self,
        labels: Sequence[Annotation],
        avoid: NDArray[np.float64],
        radii: Sequence[float],
        walls: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__([], linewidths=0.6, transform=IdentityTransform(), zorder=5, **kwargs)
        self._labels = list(labels)
        self._radii = list(radii)
        self._walls = list(walls)
        self._avoid = avoid
        self._hidden: list[Annotation] = []
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Place the labels, then draw the lines."""
        self._place(renderer)
        super().draw(renderer)

    def _place(self, renderer: RendererBase) -> None:
        for label in self._hidden:
            label.set_visible(True)
        self._hidden = []
        axes = self.axes
        if axes is None:
            return
        frame = axes.get_window_extent(renderer)
        each = [
            (label, _pixel(axes, label), radius)
            for label, radius in zip(self._labels, self._radii, strict=True)
            if label.get_visible()
        ]
        inside = [
            (label, anchor, radius)
            for label, anchor, radius in each
            if frame.x0 <= anchor[0] <= frame.x1 and frame.y0 <= anchor[1] <= frame.y1
        ]
        point = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
        canvas = _Canvas((frame.x0, frame.y0, frame.x1, frame.y1), point)
        canvas.walls = [float(axes.transData.transform((wall, 0.0))[0]) for wall in self._walls]
        canvas.count_points(axes.transData.transform(self._avoid) if len(self._avoid) else self._avoid)
        for _, anchor, radius in inside:
            canvas.protect(*anchor, radius)
        segments = []
        for label, anchor, radius in inside:
            label.set_position((0.0, 0.0))
            ink = label.get_window_extent(renderer)
            place = canvas.find_place(*anchor, ink.width, ink.height, radius)
            if place is None:
                label.set_visible(False)
                self._hidden.append(label)
                continue
            box, leader = place
            label.set_position(((box[0] - ink.x0) / point, (box[1] - ink.y0) / point))
            if leader is not None:
                segments.append(leader)
        self.set_segments(segments)


class _Canvas:
    """Occupied parts of the axes, in pixels."""

    def __init__(self, frame: Box, point: float) -> None:
        self.frame = frame
        self.point = point
        self.boxes: list[Box] = []
        self.protected: list[Box] = []
        self.leaders: list[NDArray[np.float64]] = []
        self.walls: list[float] = []
        self.cell = 3.0 * point
        self.columns = max(int((frame[2] - frame[0]) / self.cell) + 1, 1)
        self.rows = max(int((frame[3] - frame[1]) / self.cell) + 1, 1)
        self.cumulative = np.zeros((self.columns + 1, self.rows + 1))

    def count_points(self, points: NDArray[np.float64]) -> None:
        """Mark the cells of a grid that hold points; sums over rectangles then cost four look-ups."""
        if not len(points):
            return
        i = (points[:, 0] - self.frame[0]) // self.cell
        j = (points[:, 1] - self.frame[1]) // self.cell
        ok = (i >= 0) & (i < self.columns) & (j >= 0) & (j < self.rows)
        occupied = np.zeros((self.columns, self.rows))
        occupied[i[ok].astype(np.intp), j[ok].astype(np.intp)] = 1.0
        self.cumulative[1:, 1:] = occupied.cumsum(axis=0).cumsum(axis=1)

    def protect(self, x: float, y: float, radius: float) -> None:
        """Keep labels off a labelled point."""
        r = radius * self.point
        self.protected.append((x - r, y - r, x + r, y + r))

    def find_place(
        self, x: float, y: float, width: float, height: float, radius: float = 2.0
    ) -> tuple[Box, NDArray[np.float64] | None] | None:
        """Return the cheapest free box for a label of the point (x, y), and its leader line if it needs one."""
        best: tuple[float, Box, NDArray[np.float64] | None] | None = None
        gap = (1.5 + radius) * self.point
        for box in self._candidates(x, y, width, height, gap):
            near = np.array([min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])])
            distance = float(np.hypot(near[0] - x, near[1] - y))
            cost = distance / height + 0.4 * abs(0.5 * (box[0] + box[2]) - x) / (0.5 * width + height)
            cost += 0.8 * (box[3] < y) + 6.0 * any(box[0] < wall < box[2] for wall in self.walls)
            if distance > _FARTHEST * height or (best is not None and cost >= best[0]):
                continue
            if not self._fits(box):
                continue
            leader = np.array([[x, y], near]) if distance > gap + 2.5 * self.point else None
            path = np.linspace([x, y], near, 12)
            if any(_holds(b, path).any() for b in self.boxes) or any(_holds(box, old).any() for old in self.leaders):
                continue
            covered = self._points_in(box)
            if covered > _MOST_COVERED * width * height / self.cell**2:
                continue
            cost += 1.5 * min(covered, 12.0)
            if best is None or cost < best[0]:
                best = (cost, box, leader)
        if best is None:
            return None
        _, box, leader = best
        self.boxes.append(box)
        if leader is not None:
            self.leaders.append(np.linspace(leader[0], leader[1], 24))
        return box, leader

    def _candidates(self, x: float, y: float, width: float, height: float, gap: float) -> list[Box]:
        x0, y0, x1, y1 = self.frame
        boxes = []

        def add(left: float, bottom: float) -> None:
            # A label wider than the room beside its point is pushed inwards.
            left = min(max(left, x0 + 3.5 * self.point), x1 - width)
            box = (left, bottom, left + width, bottom + height)
            if left >= x0 and bottom >= y0 and box[3] <= y1:
                boxes.append(box)

        for level in range(10):
            bottom = y + gap + level * 1.05 * height
            for shift in (0.0, 0.5, -0.5, 1.0, -1.0, 1.6, -1.6):
                add(x - 0.5 * width + shift * width, bottom)
        for step in (0.0, -1.0, -2.0, -3.0, -4.0, 1.0, 2.0):
            bottom = y + (step * 1.05 - 0.5) * height
            for shift in (0.0, 0.5, 1.2):
                add(x + gap + shift * width, bottom)
                add(x - gap - width - shift * width, bottom)
        return boxes

    def _fits(self, box: Box) -> bool:
        m = 1.0 * self.point
        wide = (box[0] - 2.0 * m, box[1] - 0.5 * m, box[2] + 2.0 * m, box[3] + 0.5 * m)
        return not any(_overlap(wide, b) for b in self.boxes) and not any(_overlap(box, b) for b in self.protected)

    def _points_in(self, box: Box) -> float:
        i0, j0 = (int((box[k] - self.frame[k]) // self.cell) for k in (0, 1))
        i1, j1 = (int((box[k + 2] - self.frame[k]) // self.cell) + 1 for k in (0, 1))
        i0, i1 = max(i0, 0), min(i1, self.columns)
        j0, j1 = max(j0, 0), min(j1, self.rows)
        c = self.cumulative
        return float(c[i1, j1] - c[i0, j1] - c[i1, j0] + c[i0, j0])


def _pixel(axes: Any, label: Annotation) -> tuple[float, float]:
    x, y = axes.transData.transform(label.xy)
    return float(x), float(y)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _holds(box: Box, path: NDArray[np.float64]) -> NDArray[np.bool_]:
    held: NDArray[np.bool_] = (
        (path[:, 0] > box[0]) & (path[:, 0] < box[2]) & (path[:, 1] > box[1]) & (path[:, 1] < box[3])
    )
    return held


class Fitter(Artist):
    """
    Fits texts to the axes, at whatever size these are drawn; draws nothing itself.

    A layout engine asks for its extent before it gives out room, and so sees the texts as they will be.
    """

    def __init__(self, parts: list[Part]) -> None:
        super().__init__()
        self._parts = parts
        self._settled = False
        self.set_zorder(-1.0)

    def get_tightbbox(self, renderer: RendererBase | None = None) -> Bbox | None:
        """Fit, and return the room that the texts now take."""
        axes: Any = self.axes
        if renderer is None or axes is None:
            return None
        found = [part.fit(axes, renderer, settled=False) for part in self._parts]
        self._settled = True
        boxes = [box for box in found if box is not None]
        return Bbox.union(boxes) if boxes else None

    def draw(self, renderer: RendererBase) -> None:
        """Fit, without change to what a layout engine has made room for."""
        axes: Any = self.axes
        if axes is not None and self.get_visible():
            for part in self._parts:
                part.fit(axes, renderer, settled=self._settled)
        self._settled = False


def fit(ax: Axes) -> list[Part]:
    """
    Return a list, empty yet, of what is fitted to the axes whenever these are drawn.

    Before other artists are added: a layout engine asks in this order, and their extents then are the new ones.
    """
    parts: list[Part] = []
    fitter = Fitter(parts)
    ax.add_artist(fitter)
    # What is clipped to the axes is not asked for its extent.
    fitter.set_clip_on(False)
    return parts
