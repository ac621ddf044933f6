"""The 68 classic points as material points of the procedural head's skin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from data_utils.synthetic.head import HeadShape

# Place on the skull (x, y) in cm and the slit's side (+1 upper edge, -1 lower edge), where the mesh point of
# geometry.landmarks.MESH_TO_68 sits. Points of the right half (x < 0); the left half mirrors them.
_JAW = [(-6.85, 3.8), (-6.92, 0.77), (-6.8, -0.7), (-6.25, -4.08), (-5.72, -5.5), (-4.92, -6.39), (-3.2, -7.94),
        (-1.4, -8.91), (0.0, -8.91)]  # fmt: skip
_BROW = [(-5.91, 4.46), (-5.03, 4.84), (-4.07, 5.1), (-2.88, 4.97), (-1.41, 4.84)]
_NOSE_LINE = [(0.0, 2.85), (0.0, 1.3), (0.0, -0.28), (0.0, -0.98)]
_NOSE_BASE = [(-1.3, -1.95), (-0.8, -2.32), (0.0, -2.32)]
_EYE = [(-4.36, 2.62, 1), (-3.69, 2.62, 1), (-2.85, 2.62, 1), (-1.84, 2.62, 1), (-2.85, 2.62, -1), (-3.45, 2.62, -1)]
_OUTER_UPPER = [(-2.4, -4.2, -1), (-1.46, -3.65, 0), (-0.69, -3.38, 0), (0.0, -3.49, 0)]
_OUTER_LOWER = [(0.0, -5.1, 0), (-0.77, -5.1, 0), (-1.36, -4.88, 0)]
_INNER_UPPER = [(-2.2, -4.2, -1), (-0.57, -4.2, 1), (0.0, -4.2, 1)]
_INNER_LOWER = [(0.0, -4.2, -1), (-0.57, -4.2, -1)]


def _mirror(points: list[tuple]) -> list[tuple]:
    return [(-p[0], *p[1:]) for p in reversed(points)]


def _places() -> list[tuple]:
    left_eye = [(-x, y, side) for x, y, side in (_EYE[3], _EYE[2], _EYE[1], _EYE[0], _EYE[5], _EYE[4])]
    return [
        *_JAW, *_mirror(_JAW[:-1]), *_BROW, *_mirror(_BROW), *_NOSE_LINE, *_NOSE_BASE, *_mirror(_NOSE_BASE[:-1]),
        *_EYE, *left_eye, *_OUTER_UPPER, *_mirror(_OUTER_UPPER[:-1]),
        *_mirror(_OUTER_LOWER[1:]), *_OUTER_LOWER,
        *_INNER_UPPER, *_mirror(_INNER_UPPER[:-1]), *_mirror(_INNER_LOWER[1:]), *_INNER_LOWER,
    ]  # fmt: skip


def landmark_vertices(head: HeadShape) -> Int[ndarray, "68"]:
    """Return the skin vertex of each of the 68 points."""
    return np.array([head.nearest(*place[:2], side=place[2] if len(place) > 2 else 0) for place in _places()])


def mouth_shape(landmarks: Float[ndarray, "*T 68 3"]) -> Float[ndarray, "*T 2"]:
    """Return the gap between the lips (mean of three pairs) and the width between their inner corners, input's unit."""
    gap = landmarks[..., [61, 62, 63], :] - landmarks[..., [67, 66, 65], :]
    corners = landmarks[..., 60, :] - landmarks[..., 64, :]
    return np.stack([np.linalg.norm(gap, axis=-1).mean(-1), np.linalg.norm(corners, axis=-1)], -1)
