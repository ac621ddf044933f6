"""Line plots as SVG text, for a page that loads nothing: axes, ticks, a legend, gaps where there is no value.

Colours come from the page: `STYLE` names them, and the page sets `--line-1` ... `--line-6`, `--ink`, `--grid`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36
CHARACTER_PX = 6.3
"""Width of a character of the labels, roughly: the legend is laid out without knowing the font."""
LEGEND_PX = 17
LONGEST_NAME = 28
INKS = 6
"""Colours there are."""

STYLE = """
svg.plot { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg.plot text { fill: var(--ink); }
svg.plot .grid { stroke: var(--grid); stroke-width: 1; }
svg.plot .line { fill: none; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }
""" + "\n".join(f"svg.plot .line-{i} {{ stroke: var(--line-{i}); }}" for i in range(1, INKS + 1))  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str
    """For the legend; empty: not listed there."""
    x: Sequence[float | int]
    """Ascending."""
    y: Sequence[float | int | None]
    """None where there is no value: the line has a gap."""
    ink: int = 0
    """Which colour: the same thing has the same one in every plot."""


def line_plot(lines: Sequence[Line], title: str, x_label: str, y_label: str = "", *, marks: bool = False) -> str:
    """Draw lines over a common axis; return an `<svg>` element.

    Args:
        lines: What is drawn; lines without any value are left out, and a plot without lines says so.
        title: Read out to those who do not see the plot.
        x_label: Below the axis.
        y_label: Left of the axis.
        marks: Put a dot on every value (few values only).
    """
    drawn = [line for line in lines if any(value is not None for value in line.y)]
    places, rows = _place_legend([line.name for line in drawn])
    top, bottom = TOP + rows * LEGEND_PX, HEIGHT - BOTTOM
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    if not drawn:
        middle = f'x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle"'
        return "".join([*parts, f"<text {middle}>no frame has a value</text></svg>"])
    x_low, x_high = _padded([x for line in drawn for x in line.x], 0.0)
    y_low, y_high = _padded([y for line in drawn for y in line.y if y is not None], 0.06)

    def place(x: float | int, y: float | int) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    for tick in nice_ticks(y_low, y_high, 3):
        _, y = place(x_low, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(tick)}</text>')
    for tick in nice_ticks(x_low, x_high, 5):
        x, _ = place(tick, y_low)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{_tick(tick)}</text>')
    parts.append(f'<path class="grid" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
    axis = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle"'
    parts.append(f"<text {axis}>{escape(x_label)}</text>")
    if y_label:
        middle = (top + bottom) / 2
        turned = f'transform="rotate(-90 11 {middle})" x="11" y="{middle}" text-anchor="middle"'
        parts.append(f"<text {turned}>{escape(y_label)}</text>")
    for line in drawn:
        kind = f"line line-{line.ink % INKS + 1}"
        # beyond the colours there are, dashes tell lines apart
        dash = f' stroke-dasharray="{2 * (line.ink // INKS)} 3"' if line.ink >= INKS else ""
        points = [None if y is None else place(x, y) for x, y in _thin(line)]
        parts.append(f'<path class="{kind}"{dash} d="{_path(points)}"/>')
        if marks:
            dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in filter(None, points))
            parts.append(f'<path class="{kind}" style="stroke-width:4" d="{dots}"/>')
    for line, at in zip(drawn, places, strict=True):
        if at is not None:
            kind = f"line line-{line.ink % INKS + 1}"
            parts.append(f'<path class="{kind}" style="stroke-width:3" d="M{at[0]:.1f} {at[1] - 4}h14"/>')
            parts.append(f'<text x="{at[0] + 20:.1f}" y="{at[1]}">{escape(_shorten(line.name))}</text>')
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float | int, high: float | int, count: int) -> list[float]:
    """Return at least `count` round numbers between two bounds, 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.ceil(math.log10((high - low) / count))
    ticks: list[float] = []
    for step in (factor * power for factor in (2, 1, 0.5, 0.2, 0.1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        ticks = [round(i * step, 12) for i in range(first, last + 1)]
        if len(ticks) >= count:
            break
    return ticks


def _padded(values: list[float | int], share: float) -> tuple[float | int, float | int]:
    """Return the range of the values, a little wider; never empty."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        margin = max(abs(low) * 0.05, 0.5)
        return low - margin, high + margin
    return low - share * (high - low), high + share * (high - low)


def _thin(line: Line) -> list[tuple[float | int, float | int | None]]:
    """Keep the extremes of every pixel column of a long line, so that no spike is lost and the page stays small."""
    columns = WIDTH - LEFT - RIGHT
    pairs = list(zip(line.x, line.y, strict=True))
    if len(pairs) <= 2 * columns:
        return pairs
    kept: list[tuple[float | int, float | int | None]] = []
    for i in range(columns):
        group = pairs[i * len(pairs) // columns : (i + 1) * len(pairs) // columns]
        held = [j for j, (_, y) in enumerate(group) if y is not None]
        if not held:  # a gap narrower than a pixel column cannot be seen
            kept.append((group[0][0], None))
            continue
        extremes = {min(held, key=lambda j: group[j][1]), max(held, key=lambda j: group[j][1])}
        kept += [group[j] for j in sorted(extremes)]
    return kept


def _path(points: list[tuple[float, float] | None]) -> str:
    """Connect neighbours; a value between two gaps becomes a dot."""
    parts, connected = [], False
    for i, point in enumerate(points):
        if point is not None:
            alone = not connected and (i + 1 == len(points) or points[i + 1] is None)
            parts.append(f"{'L' if connected else 'M'}{point[0]:.1f} {point[1]:.1f}{'h0' if alone else ''}")
        connected = point is not None
    return "".join(parts)


def _place_legend(names: list[str]) -> tuple[list[tuple[float, int] | None], int]:
    """Return where each name begins, (x, baseline), and how many lines the legend takes; None for an empty name."""
    places: list[tuple[float, int] | None] = []
    x, row = float(LEFT), 1
    for name in names:
        if not name:
            places.append(None)
            continue
        wide = 20 + len(_shorten(name)) * CHARACTER_PX + 14
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, row = float(LEFT), row + 1
        places.append((x, TOP + (row - 1) * LEGEND_PX + 6))
        x += wide
    return places, row if any(places) else 0


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _tick(value: float | int) -> str:
    return f"{value:.6g}".replace("-", "−")
