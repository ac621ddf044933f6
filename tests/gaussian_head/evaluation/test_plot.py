"""Plots: every value in its place, gaps where there is none."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gaussian_head.evaluation.plot import HEIGHT, WIDTH, Line, line_plot, nice_ticks

NUMBER = r"-?\d+(?:\.\d+)?"


def points(svg: str, kind: str = "line line-1") -> list[tuple[float, float]]:
    """Coordinates of the first line drawn in that colour."""
    data = re.search(rf'class="{kind}"[^>]* d="([^"]*)"', svg)[1]
    return [(float(x), float(y)) for x, y in re.findall(rf"[ML]({NUMBER}) ({NUMBER})", data)]


def texts(svg: str) -> list[str]:
    return [node.text for node in ElementTree.fromstring(svg).iter("text")]  # noqa: S314 -- our own


def test_values_rise_up_the_picture_and_stay_inside() -> None:
    svg = line_plot([Line("a", [0, 1, 2, 3], [1.0, 2.0, 3.0, 5.0])], "t", "frame")
    drawn = points(svg)
    assert len(drawn) == 4
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in drawn)
    x, y = np.array(drawn).T
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(y) < 0)
    assert np.diff(y)[2] == pytest.approx(2 * np.diff(y)[0], abs=0.2)


def test_a_gap_breaks_the_line_and_a_lone_value_is_a_dot() -> None:
    svg = line_plot([Line("a", range(6), [1.0, 2.0, None, 1.5, None, 2.0])], "t", "frame")
    data = re.search(r'class="line line-1" d="([^"]*)"', svg)[1]
    assert data.count("M") == 3
    assert data.count("L") == 1
    assert data.count("h0") == 2


def test_names_are_escaped_and_the_plot_is_well_formed() -> None:
    svg = line_plot([Line('<b a="1">&', [0, 1], [0.0, 1.0])], '"<x>', "a & b", "c < d", marks=True)
    assert '<b a="1">&' in texts(svg)
    assert {"a & b", "c < d"} <= set(texts(svg))
    assert ElementTree.fromstring(svg).get("aria-label") == '"<x>'  # noqa: S314 -- our own


def test_lines_differ_in_colour_and_beyond_the_colours_in_dashes() -> None:
    svg = line_plot([Line(f"row {i}", [0, 1], [i, i + 1.0], i) for i in range(8)], "t", "frame")
    assert {f"line line-{i}" for i in range(1, 7)} <= set(re.findall(r'class="(line line-\d)"', svg))
    assert svg.count("stroke-dasharray") == 2
    assert {f"row {i}" for i in range(8)} <= set(texts(svg))


def test_a_long_legend_takes_more_lines_and_none_leaves_the_picture() -> None:
    svg = line_plot([Line(f"a rather long name, {i}", [0, 1], [0.0, 1.0], i) for i in range(5)], "t", "frame")
    nodes = [node for node in ElementTree.fromstring(svg).iter("text") if "name" in (node.text or "")]  # noqa: S314
    assert len({node.get("y") for node in nodes}) > 1
    assert all(float(node.get("x")) + 6.3 * len(node.text) <= WIDTH for node in nodes)


def test_nothing_to_draw_is_told() -> None:
    assert texts(line_plot([Line("a", [0, 1], [None, None])], "t", "frame")) == ["no frame has a value"]
    assert texts(line_plot([], "t", "frame")) == ["no frame has a value"]


@pytest.mark.parametrize("values", [[0.0], [3.0] * 5, [0.0] * 5, [-1e-12, 1e-12], [1e9, 1e9 + 1], [1e-30, 1e30]])
def test_odd_ranges_are_drawn(values: list[float]) -> None:
    svg = line_plot([Line("a", range(len(values)), values)], "t", "frame")
    assert not re.search("nan|inf", svg.partition("frame")[0], re.IGNORECASE)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points(svg))


def test_a_long_clip_keeps_its_spikes_and_its_size() -> None:
    values: list[float | None] = [1.0] * 100_000
    values[51_234], values[77_777] = 9.0, -9.0
    values[20_000:30_000] = [None] * 10_000
    svg = line_plot([Line("a", range(100_000), values)], "t", "frame")
    drawn = np.array(points(svg))
    assert len(svg) < 30_000
    assert (drawn[:, 1] < np.median(drawn[:, 1]) - 40).sum() == 1
    assert (drawn[:, 1] > np.median(drawn[:, 1]) + 40).sum() == 1
    assert re.search(r'class="line line-1" d="([^"]*)"', svg)[1].count("M") == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.93, 0.9951), (-5, 5), (17, 40_000), (-3e-7, 2e-7), (32.9, 37.4)])
def test_ticks_are_round_inside_and_enough(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 3)
    assert 3 <= len(ticks) <= 9
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert np.allclose(np.diff(ticks), step)
