"""Where Gaussians start: on the tracked face, on a shell where the head mask says hair, and inside the mouth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.spatial import Delaunay, cKDTree

from gaussian_head.geometry.cameras import project
from gaussian_head.geometry.landmarks import FACE_OVAL, INNER_LIPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.random import Generator

HEAD_CENTER_M = np.array([0.0, 0.015, -0.075])
HEAD_RADII_M = np.array([0.09, 0.125, 0.105])
"""An average skull around the mesh's frame (origin: centroid of the face oval)."""
HAIR_NEIGHBOURS, HAIR_REACH_M = 4, 0.008
"""Hair points that say how deep a Gaussian of the hair starts, and how far their word goes."""
MOUTH_DEPTH_M = (0.002, 0.022)
"""Teeth and cavity start this far behind the lips."""


def sample_face(landmarks: Float[np.ndarray, "478 3"], count: int, rng: Generator) -> Float[np.ndarray, "N 3"]:
    """Draw points evenly on the face mesh (Delaunay triangles of the frontal view) without its mouth, metres."""
    skin = landmarks[:468]
    faces = Delaunay(skin[:, :2]).simplices
    triangles = skin[faces[~np.isin(faces, INNER_LIPS).all(1)]]  # [F, 3, 3]
    edges = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    chosen = triangles[rng.choice(len(triangles), count, p=areas / areas.sum())]
    u, v = rng.random((2, count, 1))
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    return chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])


def sample_hair(
    views: Iterable[tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"], np.ndarray]],
    landmarks: Float[np.ndarray, "478 3"],
    strands: Float[np.ndarray, "G 3"],
    count: int,
    rng: Generator,
) -> Float[np.ndarray, "N 3"]:
    """Draw points of the head outside the face mesh: head-mask pixels cast onto the hair, or onto an average skull.

    Args:
        views: Per frame viewmat, K (px) and a bool mask [H, W] of the head without the face mesh's interior.
        landmarks: Landmarks at rest, metres.
        strands: Mean hair points, metres.
        count: Number of points.
        rng: Source of randomness.

    Returns:
        Points as deep as the hair points beside their rays; where there are none, where the rays meet the skull's
        front, or pass the plane of its centre when they miss it.
    """
    center = HEAD_CENTER_M + landmarks[FACE_OVAL].mean(0)
    views = list(views)
    points = []
    for viewmat, K, mask in views:
        rows, columns = np.nonzero(mask)
        if not len(rows):
            continue
        pick = rng.integers(len(rows), size=count // len(views) + 1)
        pixels = np.stack(
            [columns[pick] + rng.random(len(pick)), rows[pick] + rng.random(len(pick)), np.ones(len(pick))], 1
        )
        c2w = np.linalg.inv(viewmat)
        direction = pixels @ np.linalg.inv(K).T @ c2w[:3, :3].T
        points.append(_meet_hair(c2w[:3, 3], _meet_skull(c2w[:3, 3], direction, center), strands))
    return np.concatenate(points)[rng.permutation(sum(map(len, points)))[:count]] if points else np.zeros((0, 3))


def _meet_skull(
    origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "N 3"], center: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "N 3"]:
    o, d = (origin - center) / HEAD_RADII_M, direction / HEAD_RADII_M
    a, b, c = (d * d).sum(1), d @ o, o @ o - 1
    hit = b * b - a * c
    front = (-b - np.sqrt(np.maximum(hit, 0))) / a
    plane = (center[2] - origin[2]) / direction[:, 2]
    return origin + np.where(hit > 0, front, plane)[:, None] * direction


def _meet_hair(
    origin: Float[np.ndarray, "3"], points: Float[np.ndarray, "N 3"], strands: Float[np.ndarray, "G 3"]
) -> Float[np.ndarray, "N 3"]:
    """Move points along their rays to the depth of the nearest hair points, where some are near the ray."""
    if len(strands) < HAIR_NEIGHBOURS:
        return points

    def seen(p: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 2"]:
        return (p[:, :2] - origin[:2]) / (origin[2] - p[:, 2:])

    distances, nearest = cKDTree(seen(strands)).query(seen(points), k=HAIR_NEIGHBOURS)
    reach = HAIR_REACH_M / (origin[2] - strands[:, 2].mean())
    weights = np.exp(-0.5 * (distances / reach) ** 2) + 1e-12
    depth = (weights * (origin[2] - strands[nearest, 2])).sum(1) / weights.sum(1)
    near = distances[:, 0] < 2 * reach
    scale = np.where(near, depth / (origin[2] - points[:, 2]), 1.0)
    return origin + scale[:, None] * (points - origin)


def sample_mouth(landmarks: Float[np.ndarray, "T 478 3"], count: int, rng: Generator) -> Float[np.ndarray, "N 3"]:
    """Draw points in the box behind the lips at their widest opening, metres."""
    lips = landmarks[:, INNER_LIPS]
    low, high = np.percentile(lips.reshape(-1, 3), [1, 99], axis=0)
    front = lips[..., 2].mean()
    low[2], high[2] = front - MOUTH_DEPTH_M[1], front - MOUTH_DEPTH_M[0]
    return rng.uniform(low, high, (count, 3))


def paint(
    points: Float[np.ndarray, "N 3"],
    views: Iterable[tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"], Float[np.ndarray, "H W 3"]]],
) -> Float[np.ndarray, "N 3"]:
    """Colour points with the mean of the pictures (RGB in [0, 1]) they project into; grey where none sees them."""
    total, seen = np.zeros_like(points), np.zeros((len(points), 1))
    for viewmat, K, image in views:
        pixels, _ = project(points, viewmat, K)
        columns, rows = np.floor(pixels).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < image.shape[1]) & (rows < image.shape[0])
        total[inside] += image[rows[inside], columns[inside]]
        seen[inside] += 1
    return np.where(seen > 0, total / np.maximum(seen, 1), 0.5)
