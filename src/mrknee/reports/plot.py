"""Plotting area in SVG; colours and fonts are defined by the CSS of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]


class Plot:
    """One inline SVG with one plotting area.

    Marks are given in data coordinates and written in SVG units. Their classes are coloured by the
    style sheet of the page, so one figure serves light mode, dark mode and print.

    Args:
        name: name unique on the page, used in the ids of title and description.
        title: short title of the figure.
        description: text alternative of the figure, with its numbers.
        size: width and height of the figure, in SVG units (one CSS pixel on a phone).
        area: left, top, right and bottom of the plotting area, in SVG units.
        x: range of the data from left to right.
        y: range of the data from bottom to top.
    """

    def __init__(
        self,
        name: str,
        title: str,
        description: str,
        *,
        size: tuple[int, int],
        area: tuple[float, float, float, float],
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._name, self._title, self._description = name, title, description
        self._size, self._area, self._x, self._y = size, area, x, y
        self._marks: list[str] = []

    def at(self, x: float, y: float) -> Point:
        """Returns the position of a data point in SVG units."""
        left, top, right, bottom = self._area
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(self, start: Point, end: Point, kind: str) -> None:
        """Draws a straight line between two data points."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        self._marks.append(
            f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def path(self, points: Iterable[Point], kind: str) -> None:
        """Draws a line through data points."""
        self._marks.append(f'<polyline class="{kind}" points="{self._joined(points)}"/>')

    def region(self, points: Iterable[Point], kind: str) -> None:
        """Fills the polygon of data points."""
        self._marks.append(f'<polygon class="{kind}" points="{self._joined(points)}"/>')

    def dot(self, point: Point, kind: str, radius: float = 4.5) -> None:
        """Draws a disc at a data point."""
        x, y = self.at(*point)
        self._marks.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def square(self, point: Point, kind: str, half: float = 4.5, *, turned: bool = False) -> None:
        """Draws a square at a data point, or a diamond if `turned`."""
        x, y = self.at(*point)
        turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if turned else ""
        self._marks.append(
            f'<rect class="{kind}" x="{x - half:.1f}" y="{y - half:.1f}" '
            f'width="{2 * half:g}" height="{2 * half:g}"{turn}/>'
        )

    def triangle(self, point: Point, kind: str, half: float = 5.5) -> None:
        """Draws a triangle with its tip up, centred on a data point."""
        x, y = self.at(*point)
        corners = ((x, y - half), (x + half, y + half), (x - half, y + half))
        joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        self._marks.append(f'<polygon class="{kind}" points="{joined}"/>')

    def text(self, x: float, y: float, words: str, kind: str = "tick") -> None:
        """Writes text at a position in SVG units."""
        self._marks.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>')

    def axes(self, x_label: str, y_label: str, ticks: Sequence[float]) -> None:
        """Draws the grid, the ticks of both axes, and the axis labels."""
        left, top, right, bottom = self._area
        for tick in ticks:
            self.line((tick, self._y[0]), (tick, self._y[1]), "grid")
            self.line((self._x[0], tick), (self._x[1], tick), "grid")
            x, y = self.at(tick, tick)
            self.text(x, bottom + 15, f"{tick:g}", "tick mid")
            self.text(left - 6, y + 4, f"{tick:g}", "tick end")
        self.text((left + right) / 2, bottom + 33, x_label, "axis mid")
        middle = (top + bottom) / 2
        self._marks.append(
            f'<text class="axis mid" transform="translate(11 {middle:.1f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )

    def svg(self) -> str:
        """Returns the figure as an SVG element for an HTML page."""
        width, height = self._size
        name = escape(self._name)
        return (
            f'<svg viewBox="0 0 {width} {height}" role="img" '
            f'aria-labelledby="{name}-title {name}-text">'
            f'<title id="{name}-title">{escape(self._title)}</title>'
            f'<desc id="{name}-text">{escape(self._description)}</desc>'
            + "".join(self._marks)
            + "</svg>"
        )

    def _joined(self, points: Iterable[Point]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
