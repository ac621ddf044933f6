"""Points on the skin of a tracked face, and what a picture shows at them.

Notation as in `face_track`; S points. Camera axes are OpenGL's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from data_utils.face_track import FaceTrack
from gaussian_head.geometry.landmarks import (
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    RIGID,
)

SKIN = 468
"""The mesh points of the skin come first; the irises follow."""
CANDIDATES = 3000
"""Points drawn on the whole mesh, of which the steady ones are kept."""
STEADY_M = 0.0008
"""Points that move more than this (standard deviation over the clip) count little."""
LOWEST_M = 0.01
"""Points lower than this below the lowest rigid landmark belong to the mouth and the jaw."""
LEAST_STEADINESS = 0.02
NOISE = 8.0
"""Expected intensity difference (0..255) of well aligned frames; larger ones are down-weighted (Cauchy)."""
MARGIN_PX = 48
"""How far around the points pictures are filtered, px at 512 px."""


class SkinPoints:
    """Steady points on the mean face: barycentric positions on the mesh, places and normals, how steady they are."""

    def __init__(self, track: FaceTrack) -> None:
        rng = np.random.default_rng(0)
        self.landmarks = track.points().mean(0).double().numpy()
        shape = self.landmarks[:SKIN]
        faces = Delaunay(shape[:, :2]).simplices
        edges = shape[faces[:, 1:]] - shape[faces[:, :1]]
        cross = np.cross(edges[:, 0], edges[:, 1])
        cross *= np.sign(cross[:, 2:])  # outward: towards the camera of a frontal face
        areas = np.linalg.norm(cross, axis=1)
        chosen = rng.choice(len(faces), CANDIDATES, p=areas / areas.sum())
        barycentric = rng.dirichlet(np.ones(3), CANDIDATES)
        vertices = faces[chosen]
        steady = (stillness(track)[vertices] * barycentric).sum(1)
        kept = steady > LEAST_STEADINESS
        self.vertices, self.barycentric, self.steady = vertices[kept], barycentric[kept], steady[kept]
        self.normals = (cross / areas[:, None])[chosen[kept]]
        self.places = self.at(self.landmarks)

    def at(self, values: Float[ndarray, "L D"]) -> Float[ndarray, "S D"]:
        """Interpolate what is known at the landmarks."""
        return (values[self.vertices] * self.barycentric[..., None]).sum(1)


def stillness(track: FaceTrack) -> Float[ndarray, "L"]:
    """Tell which landmarks belong to the skull: 1 those that keep still in the head frame .. 0 those that move.

    Eyes, brows, mouth and jaw move whatever they did in this clip. What goes with the pose does not count as moving: it
    comes from a wrong depth, or from a detector that follows the head in part.
    """
    points = track.points().double().numpy()
    turns = Rotation.from_matrix(track.rotations.double().numpy())
    pose = np.column_stack([np.ones(len(points)), (turns * turns.mean().inv()).as_rotvec()])
    flat = points.reshape(len(points), -1)
    own = flat - pose @ np.linalg.lstsq(pose, flat, rcond=None)[0]
    wander = own.reshape(points.shape).std(0).max(1)
    height = points[..., 1].mean(0)
    still = np.exp(-0.5 * (wander / STEADY_M) ** 2) * np.clip((height - height[RIGID].min()) / LOWEST_M + 1, 0, 1)
    still[np.concatenate([RIGHT_EYE, LEFT_EYE, RIGHT_BROW, LEFT_BROW, RIGHT_IRIS, LEFT_IRIS])] = 0
    return still


class Lens:
    """Pinhole projection (OpenGL camera axes) with its derivative."""

    def __init__(self, focal_px: float, size: tuple[int, int]) -> None:
        self.focal_px = focal_px
        self.center = np.array(size) / 2
        self.unit = size[0] / 512

    def project(self, camera: Float[ndarray, "S 3"]) -> tuple[Float[ndarray, "S 2"], Float[ndarray, "S 2 3"]]:
        """Return pixel positions, and their derivatives by the camera coordinates."""
        x, y, z = camera.T
        f = self.focal_px
        zero = np.zeros_like(x)
        derivative = np.stack([np.stack([-f / z, zero, f * x / z**2], 1), np.stack([zero, f / z, -f * y / z**2], 1)], 1)
        return self.center + np.stack([-f * x / z, f * y / z], 1), derivative


class BandPass:
    """Band-passed intensity of a picture (0..255) and its x and y derivatives, around the given pixels."""

    def __init__(self, rgb: ndarray, pixels: Float[ndarray, "S 2"], unit: float) -> None:
        margin = MARGIN_PX * unit
        low = np.clip((pixels.min(0) - margin).astype(int), 0, np.array(rgb.shape[1::-1]) - 8)
        high = np.maximum(pixels.max(0) + margin, low + 8).astype(int)
        gray = cv2.cvtColor(rgb[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY).astype(np.float32)
        fine = cv2.GaussianBlur(gray, (0, 0), 1.2 * unit)
        coarse = cv2.resize(fine, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 4 * unit), (gray.shape[1], gray.shape[0]))
        band = fine - coarse
        slopes = (cv2.Scharr(band, cv2.CV_32F, *axes) / 32 for axes in ((1, 0), (0, 1)))
        self._layers = np.dstack([band, *slopes])
        self._corner = low + 0.5  # OpenCV puts pixel centres at integers

    def sample(self, pixels: Float[ndarray, "S 2"]) -> Float[ndarray, "3 S"]:
        """Return intensity and derivatives at pixel positions."""
        x, y = (pixels - self._corner).astype(np.float32).T
        shown = cv2.remap(self._layers, x[:, None], y[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return shown[:, 0].T


@dataclass
class Sighting:
    """What a picture shows at the skin's points under one pose.

    Args:
        rotated: Points turned into camera axes, before the translation.
        values: Band-passed intensities.
        slopes: Derivative of the intensity by the point's place in the camera.
        weights: How steady the points are and how squarely they face the camera, 0..1.
    """

    rotated: Float[ndarray, "S 3"]
    values: Float[ndarray, " S"]
    slopes: Float[ndarray, "S 3"]
    weights: Float[ndarray, " S"]

    def compare(
        self, texture: Float[ndarray, " S"]
    ) -> tuple[Float[ndarray, " S"], Float[ndarray, "S 3"], Float[ndarray, " S"]]:
        """Return what is missing to a texture, under the best exposure; the slopes under it; and robust weights."""
        squares = (self.weights * self.values**2).sum()
        gain = np.clip((self.weights * self.values * texture).sum() / max(squares, 1e-6), 0.7, 1.4)
        residual = texture - gain * self.values
        return residual, gain * self.slopes, self.weights / (1 + (residual / NOISE) ** 2) / NOISE**2


def look(
    skin: SkinPoints,
    places: Float[ndarray, "S 3"],
    rotation: Float[ndarray, "3 3"],
    translation: Float[ndarray, "3"],
    picture: BandPass,
    lens: Lens,
) -> Sighting:
    """Look at the skin's points, standing at `places` of the head frame, in a picture."""
    rotated = places @ rotation.T
    camera = rotated + translation
    pixels, derivative = lens.project(camera)
    values, along_x, along_y = picture.sample(pixels)
    slopes = along_x[:, None] * derivative[:, 0] + along_y[:, None] * derivative[:, 1]
    towards = -camera / np.linalg.norm(camera, axis=1, keepdims=True)
    cosine = (skin.normals @ rotation.T * towards).sum(1)
    facing = np.clip((cosine - 0.25) / 0.45, 0, 1)  # 0 beyond about 75 degrees, 1 within 45
    return Sighting(rotated, values, slopes, skin.steady * facing)


def pose_jacobian(rotated: Float[ndarray, "S 3"], slopes: Float[ndarray, "S 3"]) -> Float[ndarray, "S 6"]:
    """Chain slopes by camera coordinates to a pose's step: rotation vector about the head's origin, translation."""
    return np.concatenate([np.cross(rotated, slopes), slopes], 1)
