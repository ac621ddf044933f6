"""A drawn face mesh in place of a network's, and the way from pictures with it to figures."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from gaussian_head.evaluation.measure import Measured, measure
from gaussian_head.evaluation.metric import ClipFacts, Figure, Look, Metric, Pair
from gaussian_head.geometry.landmarks import (
    CHIN,
    FOREHEAD_TOP,
    JAW_LINE,
    LOWER_INNER_LIP,
    MESH_TO_68,
    UPPER_INNER_LIP,
)

FPS, SIZE = 25.0, 128
BLANK = np.zeros((8, 8, 3), np.uint8)


def face(opening: float = 0.0, eyes: float = 0.3, turn_deg: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    """A mesh, px: lips `opening` px apart, eyes of that aspect ratio, turned about its centre."""
    mesh = np.random.default_rng(1).uniform((-30, -40, -15), (30, 40, 15), (478, 3))
    mesh[FOREHEAD_TOP] = 0, -45, 0
    angle = np.linspace(0, np.pi, len(JAW_LINE))
    mesh[JAW_LINE] = np.stack([35 * np.cos(angle), 45 * np.sin(angle), 0 * angle], 1)
    assert np.allclose(mesh[CHIN], (0, 45, 0))
    for lip, side in ((UPPER_INNER_LIP, -1), (LOWER_INNER_LIP, 1)):
        mesh[lip] = [(x, 20 + side * opening / 2, 0) for x in (-4, 0, 4)]
    for first, centre in ((36, -15), (42, 15)):
        corner, high, higher, far, low, lower = MESH_TO_68[first : first + 6]
        mesh[[corner, far]] = (centre - 5, -10, 0), (centre + 5, -10, 0)
        mesh[[high, higher]] = [(centre + x, -10 - 5 * eyes, 0) for x in (-2, 2)]
        mesh[[low, lower]] = [(centre + x, -10 + 5 * eyes, 0) for x in (2, -2)]
    turned = mesh @ Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix().T
    return turned + (SIZE / 2, SIZE / 2, 0)


def look(mesh: np.ndarray | None, rgb: np.ndarray = BLANK) -> Look:
    return Look(rgb, lambda _: mesh)


def run(metric: type[Metric], pictures: list[Look], truths: list[Look] | None = None, **facts: object) -> Measured:
    pairs = [Pair(i, picture, truths[i] if truths else None) for i, picture in enumerate(pictures)]
    return measure(pairs, ClipFacts(FPS, SIZE, SIZE, truths is not None, **facts), [metric])


def figures(metric: type[Metric], *arguments: object, **facts: object) -> dict[str, Figure]:
    measured = run(metric, *arguments, **facts)
    assert not measured.unavailable
    assert {figure.entry for figure in measured.figures} == {entry.name for entry in metric.entries}
    return {figure.entry: figure for figure in measured.figures}


def rises(values: list[float]) -> bool:
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def talk() -> list[np.ndarray]:
    """Meshes of 60 frames of a mouth that opens and closes."""
    return [face(opening=3 + 3 * np.sin(0.7 * t) + 1.5 * np.sin(0.23 * t)) for t in range(60)]


def texture() -> np.ndarray:
    """A soft random picture whose left and right edges fit."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(SIZE, SIZE, 3)), (3, 3, 0), mode="wrap")
    return (127 + 40 * noise / noise.std()).clip(0, 255).astype(np.uint8)
