"""The head's skin: a lofted skull with the features of a face, and how expressions deform it (cm).

The surface is one grid of rows (heights) and columns (azimuths). At the mouth line and at the eye line the grid is
slit: several rows share one height there, the edges of the lips (lids) and their inner sides. Where a column misses the
mouth (the eyes) these rows fall together, and the slit is shut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from data_utils.synthetic.mesh import NormalField, grid_faces, loft, normalized

MOUTH_Y, MOUTH_HALF_WIDTH = -4.2, 2.45
EYE_X, EYE_Y, EYE_HALF_WIDTH = 3.12, 2.62, 1.26
EYE_CENTRES = np.array([[-EYE_X, EYE_Y, 2.98], [EYE_X, EYE_Y, 2.98]])
"""Of the subject's right eye (left in the picture) and left eye."""
EYE_RADIUS = 1.33
LID_OPEN = 0.41
"""How far the upper lid stands above the eye line, looking ahead."""
CORNER_WEB = (0.18, 0.35)
"""Where mouth and eyes open less than this share of their middle, skin joins their edges inside."""
JAW_HINGE_Y, JAW_HINGE_Z, JAW_LEVER = 0.5, -4.0, 9.2

SKULL = np.array([  # y, centre z, half width, front depth, back depth
    [-9.45, 3.2, 0.02, 0.02, 0.02], [-9.38, 3.1, 1.1, 0.9, 0.9], [-9.1, 2.6, 2.1, 2.1, 1.6],
    [-8.4, 1.6, 3.3, 3.6, 2.4], [-7.2, 0.3, 4.6, 4.8, 3.2], [-6.0, -0.8, 5.5, 5.7, 4.0],
    [-4.2, -1.8, 6.3, 6.9, 5.5], [-2.5, -2.2, 6.8, 7.45, 7.0], [0.0, -2.4, 7.3, 7.6, 8.5],
    [2.6, -2.5, 7.5, 7.6, 9.3], [4.5, -2.6, 7.5, 8.15, 9.6], [6.5, -2.7, 7.35, 8.2, 9.5],
    [8.3, -2.8, 7.0, 7.5, 9.1], [10.0, -2.9, 6.2, 6.3, 8.0], [11.3, -3.0, 4.9, 4.9, 6.2],
    [12.2, -3.0, 3.2, 3.2, 4.0], [12.6, -3.0, 1.5, 1.5, 1.9], [12.7, -3.0, 0.02, 0.02, 0.02],
])  # fmt: skip

RELIEF = (  # |x|, y, sigma x, sigma y, height: bumps and dents along z, mirrored
    (3.1, 2.65, 1.45, 0.95, -0.85),  # eye sockets
    (1.85, 2.55, 0.5, 0.8, -0.42),  # inner corners
    (2.9, 4.45, 1.7, 0.5, 0.32),  # brow ridges
    (0.0, 4.6, 0.8, 0.7, 0.15),  # glabella
    (4.5, -0.2, 1.5, 1.2, 0.42),  # cheek bones
    (4.6, -3.6, 1.3, 1.6, -0.30),  # hollow of the cheeks
    (2.75, -2.9, 0.45, 1.1, -0.16),  # nasolabial folds
    (2.1, -3.0, 0.6, 0.9, 0.18),
    (1.35, -1.55, 0.42, 0.45, 0.85),  # wings of the nose
    (0.0, -3.05, 0.28, 0.40, -0.16),  # philtrum
    (2.55, -4.25, 0.45, 0.5, -0.25),  # corners of the mouth
    (0.0, -6.0, 1.5, 0.45, -0.25),  # fold under the lower lip
    (0.0, -8.0, 1.3, 0.9, 0.42),  # chin
    (6.4, 5.6, 1.2, 1.8, -0.3),  # temples
    (2.0, 7.0, 2.2, 1.4, 0.15),  # forehead
)
NOSE = np.array([  # y, height of the ridge, its half width
    [-2.75, 0.0, 0.9], [-2.35, 0.40, 0.95], [-1.9, 1.35, 1.0], [-1.3, 2.05, 1.0], [-0.8, 2.22, 0.97],
    [-0.2, 1.92, 0.88], [0.8, 1.30, 0.80], [1.8, 0.82, 0.80], [2.8, 0.48, 0.9], [3.8, 0.22, 1.1], [4.8, 0.0, 1.2],
])  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """One frame's face. Lengths in cm; the rest are ratios."""

    aperture: float = 0.0
    """Gap between the lips at the middle."""
    jaw: float = 0.0
    """How far the jaw lowers the chin."""
    width: float = 1.0
    """Width of the mouth relative to rest."""
    protrusion: float = 0.0
    """0 flat lips .. 1 rounded and pushed forward."""
    tuck: float = 0.0
    """0 .. 1 lower lip drawn under the upper teeth, or lips pressed together."""
    tongue: float = 0.0
    """0 low .. 1 at the upper teeth."""
    blink_right: float = 0.0
    """0 open .. 1 shut, the subject's right eye."""
    blink_left: float = 0.0
    brow: float = 0.0
    """-1 lowered .. 1 raised."""
    gaze_yaw: float = 0.0
    """Radians, positive to the right of the picture."""
    gaze_pitch: float = 0.0
    """Radians, positive up."""


def smoothstep(low: float | ndarray, high: float | ndarray, x: ndarray) -> ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def bump(x: ndarray, y: ndarray, sigma_x: float, sigma_y: float) -> ndarray:
    """Return a Gaussian bump of height 1."""
    return np.exp(-0.5 * ((x / sigma_x) ** 2 + (y / sigma_y) ** 2))


def ridge(x: ndarray, sigma: float) -> ndarray:
    """Return a Gaussian ridge of height 1 along x = 0."""
    return np.exp(-0.5 * (x / sigma) ** 2)


def _rows() -> tuple[ndarray, ndarray, ndarray, tuple[int, ...]]:
    """Return heights, side of the slit (-1 below, 1 above, 0 elsewhere), depth inside the slit 0..1, open cells."""
    spans = [(-9.45, -9.1, 8), (-9.1, -6.0, 16), (-6.0, MOUTH_Y, 16), (MOUTH_Y, -2.2, 17), (-2.2, 1.3, 20),
             (1.3, EYE_Y, 12), (EYE_Y, 4.2, 14), (4.2, 8.3, 16), (8.3, 12.7, 16)]  # fmt: skip
    y, side, inward, gaps = [-9.45], [0], [0.0], []
    for start, stop, count in spans:
        if start in (MOUTH_Y, EYE_Y):
            side[-1] = -1
            for depth in (0.33, 0.66, 1.0):
                y, side, inward = [*y, start], [*side, -1], [*inward, depth]
            gaps.append(len(y) - 1)
            for depth in (1.0, 0.66, 0.33, 0.0):
                y, side, inward = [*y, start], [*side, 1], [*inward, depth]
        heights = np.linspace(start, stop, count + 1)[1:]
        y, side, inward = [*y, *heights], [*side, *[0] * count], [*inward, *[0.0] * count]
    return np.array(y), np.array(side), np.array(inward), tuple(gaps)


class HeadShape:
    """The skin of head and face. Vertices are numbered row by row; `base` is the skull they grow from."""

    def __init__(self) -> None:
        y, side, inward, gaps = _rows()
        front = np.linspace(-1.06, 1.06, 141)
        rest = np.linspace(1.06, 2 * np.pi - 1.06, 55)[1:-1]
        azimuth = np.sort(np.concatenate([front, np.where(rest > np.pi, rest - 2 * np.pi, rest)]))
        self.azimuth = azimuth
        self.rows, self.columns = len(y), len(azimuth)
        grid = loft(SKULL, y, azimuth, 2.3)
        self.base = grid.reshape(-1, 3)
        self.row_side, self.row_inward = (np.repeat(v, self.columns) for v in (side, inward))
        self.is_front = smoothstep(-1.0, 1.5, self.base[:, 2])
        self._slits = [np.arange(g - 3, g + 5) for g in gaps]
        self._weights()
        self.faces = self._cut(gaps)
        self._normals = NormalField(self.faces, len(self.base))
        self.rest = self._relief()

    def _weights(self) -> None:
        x, y = self.base[:, 0], self.base[:, 1]
        front = self.base[:, 2] > 0
        at_mouth, at_eyes = np.abs(y - MOUTH_Y) < 1.2, np.abs(y - EYE_Y) < 1.2
        above_mouth = (y > MOUTH_Y) | ((y == MOUTH_Y) & (self.row_side > 0))
        self.mouth = front * (1 - (x / MOUTH_HALF_WIDTH) ** 2).clip(0) ** 0.75  # [N] share of the opening
        across = (np.abs(x) - EYE_X) / EYE_HALF_WIDTH  # -1 inner corner .. 1 outer corner
        self.eye = front * (1 - across**2).clip(0) ** 0.8 * (1 - 0.12 * across)
        self.slit_mouth = np.where(at_mouth & (y == MOUTH_Y), self.row_inward, 0) * np.minimum(self.mouth * 3, 1)
        self.slit_eye = np.where(at_eyes & (y == EYE_Y), self.row_inward, 0) * np.minimum(self.eye * 3, 1)
        blend = smoothstep(-2.4, -6.8, y) * smoothstep(-5.0, 1.0, self.base[:, 2])
        near = self.mouth * np.exp(-(((y - MOUTH_Y) / 1.6) ** 2))
        self.jaw = np.where(above_mouth, blend * (1 - near), blend + (1 - blend) * near)
        self.upper_lip = np.where(above_mouth, self.mouth * np.exp(-((y - MOUTH_Y) / 0.9).clip(0)), 0)
        self.lower_lip = np.where(above_mouth, 0, self.mouth * np.exp(-((MOUTH_Y - y) / 1.1).clip(0)))
        self.around_mouth = self.is_front * np.exp(-((x / 3.7) ** 4) - ((y - MOUTH_Y) / 2.2) ** 2)
        self.at_lips = self.is_front * bump(x, y - MOUTH_Y, 1.6, 0.8)
        above_eye = (y > EYE_Y) | ((y == EYE_Y) & (self.row_side > 0))
        self.upper_lid = np.where(above_eye, self.eye * np.exp(-((y - EYE_Y) / 0.75).clip(0)), 0)
        self.lower_lid = np.where(above_eye, 0, self.eye * np.exp(-((EYE_Y - y) / 0.7).clip(0)))
        self.brow = self.is_front * bump(np.abs(x) - 2.8, y - 4.6, 1.6, 1.0)
        reach = np.abs(np.abs(x) - EYE_X) < 2.2
        self._at_eye = [np.flatnonzero(front & reach & (np.abs(y - EYE_Y) < 2.0) & (np.sign(x) == s)) for s in (-1, 1)]

    def _cut(self, gaps: tuple[int, ...]) -> Int[ndarray, "M 3"]:
        """Return the grid's triangles without those across the open slits; a web of skin stays in their corners."""
        faces = grid_faces(self.rows, self.columns, wrap=True)
        lower_row = faces.min(1) // self.columns
        keep = np.ones(len(faces), bool)
        for gap, opening, web in zip(gaps, (self.mouth, self.eye), CORNER_WEB, strict=True):
            keep &= (lower_row != gap) | (opening[faces].max(1) < web)
        return faces[keep]

    def _relief(self) -> Float[ndarray, "N 3"]:
        """Raise the face's features from the skull."""
        x, y = self.base[:, 0], self.base[:, 1]
        z = np.zeros_like(x)
        for at_x, at_y, sigma_x, sigma_y, rise in RELIEF:
            z += rise * bump(np.abs(x) - at_x, y - at_y, sigma_x, sigma_y)
        height, width = (np.interp(y, NOSE[:, 0], NOSE[:, i]) for i in (1, 2))
        nose = height * np.exp(-((np.abs(x) / width) ** 2.0))
        lips = 0.42 * ridge(y - MOUTH_Y - 0.48, 0.34) + 0.50 * ridge(y - MOUTH_Y + 0.58, 0.42)
        lips *= (1 - (x / 2.9) ** 2).clip(0) ** 0.8
        rest = self.base.copy()
        rest[:, 2] += self.is_front * (z + nose + lips)
        rest[:, 1] -= self.is_front * (0.16 * nose * smoothstep(0.5, -1.5, y))  # the tip hangs over
        rest[:, 1] += self.is_front * 0.5 * self.at_lips * ((x / 2.45) ** 2 - 0.25) * 0.16
        return rest

    def vertices(self, face: Expression) -> Float[ndarray, "N 3"]:
        """Return the skin's vertices (cm) under an expression."""
        points = self.rest.copy()
        points[:, 1] += 0.38 * face.brow * self.brow
        self._lids(points, face)
        self._mouth(points, face)
        return points

    def _lids(self, points: ndarray, face: Expression) -> None:
        for index, (centre, blink) in enumerate(zip(EYE_CENTRES, (face.blink_right, face.blink_left), strict=True)):
            i = self._at_eye[index]
            upper = LID_OPEN + 0.35 * face.gaze_pitch + 0.06 * face.brow
            lower = 0.34 - 0.15 * face.gaze_pitch
            meet = -0.20
            p = points[i]
            p[:, 1] += self.upper_lid[i] * (upper * (1 - blink) + meet * blink)
            p[:, 1] -= self.lower_lid[i] * (lower * (1 - blink) - meet * blink)
            inside = self.slit_eye[i]
            p[:, 1] += 0.10 * inside * self.row_side[i]
            ray = p - centre
            distance = np.linalg.norm(ray, axis=1)
            shell = EYE_RADIUS + 0.10
            lid = 0.5 * (distance + shell + np.sqrt((distance - shell) ** 2 + 0.01))  # rests on the eyeball
            lid -= inside * 0.16
            points[i] = centre + ray * (lid / distance)[:, None]

    def _mouth(self, points: ndarray, face: Expression) -> None:
        swing_jaw(points, self.jaw, face.jaw)
        x, y = self.base[:, 0], points[:, 1]
        points[:, 0] += (face.width - 1) * x * self.around_mouth
        y += 0.2 * face.aperture * self.upper_lip
        y -= (0.8 * face.aperture - face.jaw) * self.lower_lip
        points[:, 2] += 0.75 * face.protrusion * self.at_lips
        points[:, 2] -= face.tuck * (0.22 * self.lower_lip + 0.12 * self.upper_lip)
        depth = self.slit_mouth
        points[:, 2] -= 0.9 * depth**1.5
        y += 0.38 * depth * self.row_side

    def normals(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
        """Return unit normals; across a shut slit the skin is smooth."""
        normals = self._normals(points).reshape(self.rows, self.columns, 3)
        weights = (np.minimum(self.mouth * 4, 1), np.minimum(self.eye * 4, 1))
        for rows, weight in zip(self._slits, weights, strict=True):
            own = weight.reshape(self.rows, self.columns, 1)[rows[0]]
            shared = normals[rows[0]] + normals[rows[-1]]
            normals[rows] = own * normals[rows] + (1 - own) * shared
        return normalized(normals.reshape(-1, 3))

    def nearest(self, x: float, y: float, *, side: int = 0) -> int:
        """Return the front vertex whose place on the skull is nearest to (x, y); `side` picks a lip or lid edge."""
        base = self.base
        cost = (base[:, 0] - x) ** 2 + (base[:, 1] - y) ** 2 + 1e3 * (base[:, 2] < 0) + 1e3 * (self.row_inward > 0)
        if side:
            cost = cost + 1e3 * (self.row_side != side)
        return int(cost.argmin())


def swing_jaw(points: Float[ndarray, "N 3"], weight: ndarray | float, drop: float) -> None:
    """Rotate points in place about the jaw's hinge so that the lips' height drops by `drop` cm, times `weight`."""
    angle = weight * drop / JAW_LEVER
    y, z = points[:, 1] - JAW_HINGE_Y, points[:, 2] - JAW_HINGE_Z
    sine, cosine = np.sin(angle), np.cos(angle)
    points[:, 1] = JAW_HINGE_Y + cosine * y - sine * z
    points[:, 2] = JAW_HINGE_Z + cosine * z + sine * y
