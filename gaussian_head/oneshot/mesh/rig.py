"""How a face of 478 points moves: a triangle mesh, and one smooth displacement field for each thing a face can do.

The fields are made for the one face at hand. What is known of a movement is pinned (lower lip and chin turn about the
jaw's hinge, nose and eyes stay ...); the rest bends as a thin plate, which is least |L d|^2 with L the mesh's Laplacian
(Sorkine et al. 2004). The mesh goes on beyond the face's oval by rings of free points, the outermost of which stays.

Notation: V mesh points (478 of the face, then the rings), F triangles. Face axes: x to the right of the picture, y
down, z away from the camera, all turned with the face; lengths in face heights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.spatial import Delaunay

from gaussian_head.geometry.landmarks import (
    CHIN,
    FACE_OVAL,
    FOREHEAD_TOP,
    INNER_LIPS,
    JAW_LINE,
    LEFT_BROW,
    LEFT_EYE,
    MESH_POINTS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
)

SKIN_POINTS = 468
"""The points behind are the irises, which are part of the eyeballs."""
UPPER_LIP = np.array([
    [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291], [76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306],
    [62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292], [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
])  # fmt: skip
"""Rings of the upper lip from its outer to its inner border; each begins and ends at a corner of the mouth."""
LOWER_LIP = np.array([
    [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291], [76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306],
    [62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292], [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
])  # fmt: skip
UPPER_LIDS = (RIGHT_EYE[15:8:-1], LEFT_EYE[15:8:-1])
LOWER_LIDS = (RIGHT_EYE[1:8], LEFT_EYE[1:8])
LID_FOLDS = (np.array([247, 30, 29, 27, 28, 56, 190]), np.array([467, 260, 259, 257, 258, 286, 414]))
BELOW_BROWS = (np.array([113, 225, 224, 223, 222, 221, 189]), np.array([342, 445, 444, 443, 442, 441, 413]))
"""Rings above the upper lids, point by point."""
UPPER_CHEEKS = (np.array([118, 119, 100, 101]), np.array([347, 348, 329, 330]))
LASHES = 0.12
"""The lower lid's edge is taken this share of the eye's opening below its points: its rim belongs to the eye."""
CHIN_POINTS = np.array([152, 148, 377, 176, 400, 199, 175, 171, 396, 200, 208, 428, 140, 369])
NOSE_BASE = np.array([2, 97, 326, 98, 327, 94, 19, 1, 4, 5])
RINGS = (1.12, 1.28, 1.5)
"""Of the mesh beyond the oval, relative to it."""
CORNER_SHARE = 0.32
"""The corners of the mouth take this share of the jaw's way."""
RING_SHARE = np.array([0.7, 0.86, 0.96, 1.0])
"""How far a lip's rings follow its inner border."""
TOPOLOGY_GAP, TOPOLOGY_RING = 0.08, 0.008
"""Face heights between and across the lips when points are joined to triangles."""
BASES = (
    "close", "jaw", "upper_lip", "lower_lip", "width", "protrusion", "tuck", "blink_right", "blink_left", "brows",
)  # fmt: skip


@dataclass(frozen=True)
class FaceFrame:
    """Where a face is and how it is turned, in px of the picture."""

    origin: Float[ndarray, "3"]
    axes: Float[ndarray, "3 3"]
    """Rows: the face's x, y, z."""
    height_px: float
    """From the top of the forehead to the chin."""

    @classmethod
    def of(cls, landmarks: Float[ndarray, "478 3"]) -> FaceFrame:
        """Measure the frame of landmarks (px; z as MediaPipe has it, smaller is nearer)."""
        down = landmarks[CHIN] - landmarks[FOREHEAD_TOP]
        across = landmarks[454] - landmarks[234]
        height = float(np.linalg.norm(down))
        y = down / max(height, 1e-6)
        x = across - (across @ y) * y
        x /= max(float(np.linalg.norm(x)), 1e-6)
        middle = landmarks[[234, 454]].mean(0)
        return cls(middle, np.stack([x, y, np.cross(x, y)]), max(height, 1.0))

    def local(self, points: Float[ndarray, "*N 3"]) -> Float[ndarray, "*N 3"]:
        """Return places in face axes, face heights."""
        return (points - self.origin) @ self.axes.T / self.height_px

    def picture(self, local: Float[ndarray, "*N 3"]) -> Float[ndarray, "*N 3"]:
        """Return places in px."""
        return local @ self.axes * self.height_px + self.origin


@dataclass(frozen=True)
class Rig:
    """A face that can move."""

    frame: FaceFrame
    points: Float[ndarray, "V 3"]
    """At rest, px."""
    faces: Int[ndarray, "F 3"]
    fields: dict[str, Float[ndarray, "V 2"]]
    """BASES: displacement in px for one unit. `jaw`, `upper_lip`, `lower_lip`, `brows`: a face height of way;
    `close` (parted lips meet), `protrusion`, `tuck`, blinks: all of it; `width`: twice as wide."""
    rest_gap: float
    """Between the lips in the picture, face heights."""
    mouth_width: float
    """Between the inner corners, face heights."""

    @classmethod
    def of(cls, landmarks: Float[ndarray, "478 3"]) -> Rig:
        """Make the rig of a face, landmarks in px with pixel centres at + 0.5."""
        frame = FaceFrame.of(landmarks)
        landmarks = landmarks.copy()
        for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
            landmarks[lower] += LASHES * (landmarks[lower] - landmarks[upper])
        local = frame.local(landmarks)
        rings = _rings(local)
        points = np.concatenate([local, rings])
        outermost = np.zeros(len(points), bool)
        outermost[-len(FACE_OVAL) :] = True
        faces = _triangles(points)
        plate = _Plate(points, faces)
        fields = {}
        for name, (pinned, way) in _movements(local).items():
            known, values = outermost.copy(), np.zeros((len(points), 3))
            known[: len(local)] |= pinned
            values[: len(local)][pinned] = way[pinned]
            moved = plate.bend(known, values)
            fields[name] = ((moved @ frame.axes) * frame.height_px)[:, :2]
        gap = np.linalg.norm(local[UPPER_LIP[3, 4:7], :2] - local[LOWER_LIP[3, 4:7], :2], axis=1).mean()
        width = np.linalg.norm(local[78] - local[308])
        return cls(frame, frame.picture(points), faces, fields, float(gap), float(width))


def _rings(local: Float[ndarray, "478 3"]) -> Float[ndarray, "R 3"]:
    oval = local[FACE_OVAL]
    middle = oval.mean(0)
    return np.concatenate([middle * [1, 1, 0] + (oval - middle * [1, 1, 0]) * [r, r, 1] for r in RINGS])


def _triangles(points: Float[ndarray, "V 3"]) -> Int[ndarray, "F 3"]:
    """Join the points as seen from the front with mouth and eyes open."""
    opened = points[:, :2].copy()
    middle, half = (opened[78] + opened[308]) / 2, (opened[308] - opened[78]) / 2
    along = half / max(float(np.linalg.norm(half)), 1e-3)
    u = (opened - middle) @ along / max(float(np.linalg.norm(half)), 1e-3)
    bulge = np.maximum(1 - u**2, 0)
    below = (opened - middle) @ np.array([-along[1], along[0]]) > 0
    below[UPPER_LIP], below[LOWER_LIP] = False, True
    opened[below, 1] += TOPOLOGY_GAP * bulge[below]
    # However thin or parted the lips are, their rings lie in order.
    inner = len(UPPER_LIP) - 1
    upper, lower = UPPER_LIP[:, 1:-1], LOWER_LIP[:, 1:-1]
    for k in range(1, len(UPPER_LIP)):
        opened[upper[k]] = opened[upper[0]] + [0, k * TOPOLOGY_RING] * bulge[upper[0], None]
    opened[lower[inner]] = opened[upper[inner]] + [0, TOPOLOGY_GAP / 2] * bulge[upper[0], None]
    for k in range(1, inner):
        opened[lower[k]] = opened[lower[0]] + (opened[lower[inner]] - opened[lower[0]]) * k / inner
    for lid in UPPER_LIDS:
        opened[lid, 1] -= 0.015 * np.sin(np.linspace(0, np.pi, len(lid) + 2))[1:-1]
    used = np.r_[:SKIN_POINTS, MESH_POINTS : len(points)]
    return used[Delaunay(opened[used]).simplices].astype(np.int32)


class _Plate:
    """Bends a mesh through known displacements."""

    def __init__(self, points: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> None:
        count = len(points)
        holes = np.isin(faces, INNER_LIPS).all(1) | np.isin(faces, RIGHT_EYE).all(1) | np.isin(faces, LEFT_EYE).all(1)
        skin = faces[~holes]
        edges = np.unique(np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), 1), axis=0)
        length = np.linalg.norm(points[edges[:, 0], :2] - points[edges[:, 1], :2], axis=1)
        weights = np.zeros((count, count))
        weights[edges[:, 0], edges[:, 1]] = weights[edges[:, 1], edges[:, 0]] = 1 / np.maximum(length, 0.01)
        degree = weights.sum(1)
        laplacian = np.eye(count) - weights / np.maximum(degree, 1e-9)[:, None]
        laplacian[degree == 0] = 0
        self._stiffness = laplacian.T @ laplacian + 1e-9 * np.eye(count)

    def bend(self, known: Bool[ndarray, " V"], values: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
        """Return the smoothest displacements that are `values` where `known`."""
        free = ~known
        out = values.copy()
        right = -self._stiffness[np.ix_(free, known)] @ values[known]
        out[free] = np.linalg.solve(self._stiffness[np.ix_(free, free)], right)
        return out


def _movements(p: Float[ndarray, "478 3"]) -> dict[str, tuple[Bool[ndarray, "478"], Float[ndarray, "478 3"]]]:
    """Return, for each of BASES, which points are pinned and where they go (face axes, face heights)."""
    mouth = _Mouth(p)
    of_mouth = ("close", "jaw", "upper_lip", "lower_lip", "width", "protrusion", "tuck")
    moves = {name: mouth.move(name) for name in of_mouth}
    for side, name in enumerate(("blink_right", "blink_left")):
        moves[name] = _blink(p, side)
    pinned, way = _still(p, np.concatenate([RIGHT_EYE, LEFT_EYE, NOSE_BASE])), np.zeros((MESH_POINTS, 3))
    pinned[np.concatenate([RIGHT_BROW, LEFT_BROW])] = True
    way[np.concatenate([RIGHT_BROW, LEFT_BROW]), 1] = -1
    moves["brows"] = pinned, way
    return moves


def _still(p: Float[ndarray, "478 3"], more: ndarray) -> Bool[ndarray, "478"]:
    pinned = np.zeros(MESH_POINTS, bool)
    pinned[FACE_OVAL] = True
    pinned[more] = True
    pinned[SKIN_POINTS:] = True
    return pinned


def _blink(p: Float[ndarray, "478 3"], side: int) -> tuple[Bool[ndarray, "478"], Float[ndarray, "478 3"]]:
    eye, other = ((RIGHT_EYE, LEFT_EYE), (LEFT_EYE, RIGHT_EYE))[side]
    upper, lower = UPPER_LIDS[side], LOWER_LIDS[side]
    brows = (RIGHT_BROW, LEFT_BROW)[side]
    pinned, way = _still(p, np.concatenate([eye, other, NOSE_BASE, brows, OUTER_LIPS])), np.zeros((MESH_POINTS, 3))
    between = p[lower] - p[upper]
    way[upper], way[lower] = 0.94 * between, -0.06 * between
    for ring, share in ((LID_FOLDS[side], 0.5), (BELOW_BROWS[side], 0.1)):
        pinned[ring], way[ring] = True, share * between
    pinned |= p[:, 1] > p[lower, 1].max() + 0.08
    return pinned, way


class _Mouth:
    """The movements of lips and jaw."""

    def __init__(self, p: Float[ndarray, "478 3"]) -> None:
        self.p = p
        self.corners = p[78], p[308]
        self.middle = (p[78] + p[308]) / 2
        half = (p[308] - p[78]) / 2
        self.half = max(float(np.linalg.norm(half)), 1e-3)
        self.along = half / self.half
        self.profile = {name: self._profile(rings) for name, rings in (("upper", UPPER_LIP), ("lower", LOWER_LIP))}
        hinge_z = p[[234, 454, 127, 356], 2].mean()
        self.hinge = np.array([0.0, p[[234, 454], 1].mean(), hinge_z])

    def _profile(self, rings: ndarray) -> Float[ndarray, "4 11"]:
        """Return 1 in the middle of a lip and 0 at its corners, for each of its points."""
        u = ((self.p[rings] - self.middle) @ self.along / self.half).clip(-1, 1)
        u[:, 0], u[:, -1] = -1, 1
        return 1 - u**2

    def move(self, name: str) -> tuple[Bool[ndarray, "478"], Float[ndarray, "478 3"]]:
        """Return what is pinned, and where it goes."""
        p = self.p
        eyes = np.concatenate([RIGHT_EYE, LEFT_EYE, RIGHT_BROW, LEFT_BROW])
        pinned, way = _still(p, np.concatenate([eyes, NOSE_BASE])), np.zeros((MESH_POINTS, 3))
        pinned |= p[:, 1] < p[1, 1]  # whatever is above the tip of the nose
        pinned[UPPER_LIP] = pinned[LOWER_LIP] = True
        getattr(self, f"_{name}")(pinned, way)
        return pinned, way

    def _close(self, pinned: ndarray, way: ndarray) -> None:
        between = self.p[LOWER_LIP[3]] - self.p[UPPER_LIP[3]]
        for share, upper, lower in zip(RING_SHARE * [0.6, 0.8, 1, 1], UPPER_LIP, LOWER_LIP, strict=True):
            way[upper[1:-1]], way[lower[1:-1]] = 0.35 * share * between[1:-1], -0.65 * share * between[1:-1]

    def _jaw(self, pinned: ndarray, way: ndarray) -> None:
        lever = self.p - self.hinge
        reach = max(float(-lever[14, 2]), 0.15)
        turn = np.stack([np.zeros(MESH_POINTS), -lever[:, 2], lever[:, 1]], 1) / reach
        level = self.p[[234, 454], 1].mean()
        low = np.clip((self.p[:, 1] - level) / max(self.middle[1] - level, 0.05), 0, 1)
        for group in (CHIN_POINTS, JAW_LINE):
            pinned[group] = True
            way[group] = turn[group] * (low[group] ** 2)[:, None]
        lower = CORNER_SHARE + (1 - CORNER_SHARE) * self.profile["lower"] ** 0.7
        upper = CORNER_SHARE * (1 - self.profile["upper"]) ** 2
        way[LOWER_LIP] = turn[LOWER_LIP] * lower[..., None]
        way[UPPER_LIP] = turn[UPPER_LIP] * upper[..., None]

    def _upper_lip(self, pinned: ndarray, way: ndarray) -> None:
        way[UPPER_LIP, 1] = -self.profile["upper"] * RING_SHARE[:, None]

    def _lower_lip(self, pinned: ndarray, way: ndarray) -> None:
        way[LOWER_LIP, 1] = self.profile["lower"] * RING_SHARE[:, None]

    def _width(self, pinned: ndarray, way: ndarray) -> None:
        for rings in (UPPER_LIP, LOWER_LIP):
            off = (self.p[rings] - self.middle) @ self.along
            way[rings] = off[..., None] * self.along
        way[..., 2] += np.where(np.isin(np.arange(MESH_POINTS), [*UPPER_LIP.ravel(), *LOWER_LIP.ravel()]), 0.02, 0)

    def _protrusion(self, pinned: ndarray, way: ndarray) -> None:
        for rings, sign, key in ((UPPER_LIP, -1, "upper"), (LOWER_LIP, 1, "lower")):
            way[rings, 2] = -0.04
            fuller = np.array([1.0, 0.7, 0.3, 0.0])[:, None] * self.profile[key]
            way[rings, 1] = sign * 0.012 * fuller

    def _tuck(self, pinned: ndarray, way: ndarray) -> None:
        thinner = np.array([1.0, 0.7, 0.3, 0.0])[:, None]
        thick = np.abs(self.p[LOWER_LIP[0], 1] - self.p[LOWER_LIP[3], 1])
        way[LOWER_LIP, 1] = -0.38 * thick * thinner * self.profile["lower"]
        thick = np.abs(self.p[UPPER_LIP[0], 1] - self.p[UPPER_LIP[3], 1])
        way[UPPER_LIP, 1] = 0.18 * thick * thinner * self.profile["upper"]
