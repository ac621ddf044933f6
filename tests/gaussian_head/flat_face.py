"""The 478 points of a made-up face, whose mouth opens."""

from __future__ import annotations

import numpy as np

from gaussian_head.geometry import landmarks as face

CHIN = {18: (0, -0.06), 200: (0, -0.07), 199: (0, -0.08), 175: (0, -0.088), 171: (-0.01, -0.085), 396: (0.01, -0.085)}


def ellipse(count: int, center: tuple[float, float], radii: tuple[float, float], start_deg: float = 90) -> np.ndarray:
    angle = np.radians(start_deg) - np.arange(count) * 2 * np.pi / count
    return np.array(center) + np.array(radii) * np.stack([np.cos(angle), np.sin(angle)], 1)


def lips(opening_m: float, indices: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Points of a lip loop, which starts at the right corner and runs along the lower lip first."""
    points = ellipse(len(indices), (0, -0.04), radii, start_deg=180)
    points[:, 1] = -0.08 - points[:, 1]
    points[points[:, 1] < -0.0401, 1] -= opening_m
    return points


def mesh(opening_m: float) -> np.ndarray:
    """The 478 points of a face 0.14 m wide, its mouth open by `opening_m`."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 478), np.sqrt(rng.uniform(0, 0.9, 478))
    xy = np.stack([0.068 * radius * np.cos(angle), 0.092 * radius * np.sin(angle)], 1)
    below = np.clip((-0.05 - xy[:, 1]) / 0.03, 0, 1) * np.exp(-((xy[:, 0] / 0.04) ** 2))
    xy[:, 1] -= 0.7 * opening_m * below
    xy[face.FACE_OVAL] = ellipse(len(face.FACE_OVAL), (0, 0), (0.07, 0.095))
    xy[152, 1] -= 0.7 * opening_m
    for point, (x, y) in CHIN.items():
        xy[point] = x, y - 0.7 * opening_m
    for loop, x in ((face.RIGHT_EYE, -0.03), (face.LEFT_EYE, 0.03)):
        xy[loop] = ellipse(len(loop), (x, 0.03), (0.012, 0.006))
    for loop, x in ((face.RIGHT_BROW, -0.03), (face.LEFT_BROW, 0.03)):
        xy[loop] = ellipse(len(loop), (x, 0.05), (0.015, 0.003))
    xy[face.OUTER_LIPS] = lips(opening_m, face.OUTER_LIPS, (0.025, 0.009))
    xy[face.INNER_LIPS] = lips(opening_m, face.INNER_LIPS, (0.018, 0.001))
    depth = 0.05 * np.sqrt(np.clip(1 - (xy[:, 0] / 0.075) ** 2 - (xy[:, 1] / 0.115) ** 2, 0, 1))
    return np.column_stack([xy, depth])
