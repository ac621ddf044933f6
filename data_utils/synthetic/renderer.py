"""Draws the person: camera, z-buffer, lights. Twice the wanted resolution, then averaged (anti-aliasing)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from data_utils.synthetic.head import Expression, smoothstep
from data_utils.synthetic.noise import octaves
from data_utils.synthetic.person import LABELS, Person
from data_utils.synthetic.raster import rasterize
from data_utils.synthetic.shading import shade, to_srgb
from gaussian_head.geometry.cameras import Camera, project

OVERSAMPLING = 2


@dataclass(frozen=True)
class Rendered:
    """One picture: RGB 0..255, label per pixel (index into `LABELS`), skin vertices in the head frame (metres)."""

    rgb: UInt8[ndarray, "H W 3"]
    labels: UInt8[ndarray, "H W"]
    skin: Float[ndarray, "S 3"]


class Renderer:
    """Draws one person in front of one wall."""

    def __init__(self, seed: int, size: int) -> None:
        self.person = Person(seed)
        self.size = size
        self._wall = _wall(np.random.default_rng([seed, 1]), size * OVERSAMPLING)
        self._is_matte = np.isin(np.arange(len(LABELS)), [LABELS.index("torso"), LABELS.index("hair")])

    def render(
        self, face: Expression, camera: Camera, room_from_head: Float[ndarray, "3 3"], body_from_head: ndarray
    ) -> Rendered:
        """Draw one frame.

        Args:
            face: The expression.
            camera: The view in the head frame (metres), `size` px square.
            room_from_head: Rotation that takes directions of the head frame to the room, where the lights stand.
            body_from_head: See `Person.pose` (cm).
        """
        posed = self.person.pose(face, body_from_head)
        side = self.size * OVERSAMPLING
        fine = camera.resized(side, side)
        xy, depth = project(posed.vertices * 0.01, fine.viewmat, fine.K)
        pixel, triangle, weights = rasterize(xy, depth, self.person.faces, side, side)
        eye = np.linalg.inv(camera.viewmat)[:3, 3] * 100
        attributes = np.column_stack(
            [
                posed.normals @ room_from_head.T,
                (eye - posed.vertices) @ room_from_head.T,
                posed.occlusion,
                self.person.uv,
            ]
        )
        values = _interpolate(attributes.astype(np.float32), self.person.faces[triangle], weights)
        label = self.person.label[triangle]
        texel = _look_up(self.person.texture, values[7], values[8])
        picture = self._wall.copy()
        picture[pixel] = shade(texel, values[:3], values[3:6], values[6], self._is_matte[label])
        labels = np.zeros(side * side, np.uint8)
        labels[pixel] = label
        picture = cv2.resize(picture.reshape(side, side, 3), (self.size, self.size), interpolation=cv2.INTER_AREA)
        return Rendered(to_srgb(picture), _majority(labels.reshape(side, side)), posed.skin * 0.01)


def _interpolate(values: Float[ndarray, "N A"], corners: ndarray, weights: ndarray) -> Float[ndarray, "A P"]:
    """Blend the values of every pixel's three corners."""
    total = values.take(corners[:, 0], 0) * weights[:, :1]
    for corner in (1, 2):
        total += values.take(corners[:, corner], 0) * weights[:, corner : corner + 1]
    return np.ascontiguousarray(total.T)


def _look_up(texture: Float[ndarray, "h w 4"], u: Float[ndarray, "P"], v: Float[ndarray, "P"]) -> ndarray:
    """Sample a texture bilinearly (in rows of 1024: OpenCV's maps are at most 32767 px wide)."""
    rows = -(-len(u) // 1024)
    maps = np.zeros((2, rows * 1024), np.float32)
    maps[0, : len(u)], maps[1, : len(u)] = u, v
    maps = maps.reshape(2, rows, 1024)
    return cv2.remap(texture, maps[0], maps[1], cv2.INTER_LINEAR).reshape(-1, 4)[: len(u)]


def _majority(labels: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "H W"]:
    """Return for every block of oversampled pixels the label that holds most of it."""
    offsets = [(i, j) for i in range(OVERSAMPLING) for j in range(OVERSAMPLING)]
    samples = [labels[i::OVERSAMPLING, j::OVERSAMPLING] for i, j in offsets]
    best, count = samples[0].copy(), np.zeros(samples[0].shape, np.uint8)
    for sample in samples:
        votes = sum((sample == other).astype(np.uint8) for other in samples)
        best = np.where(votes > count, sample, best)
        count = np.maximum(votes, count)
    return best


def _wall(rng: np.random.Generator, side: int) -> Float[ndarray, "P 3"]:
    """Paint a softly lit, slightly uneven wall (linear RGB, all pixels in a row)."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    glow = 0.55 + 0.5 * np.exp(-(((x - 0.25) / 0.6) ** 2 + ((y - 0.2) / 0.6) ** 2)) - 0.15 * y
    plaster = cv2.resize(octaves(rng, 256, 12.0, 4), (side, side), interpolation=cv2.INTER_CUBIC)
    tone = glow * (1 + 0.045 * plaster)
    panel = smoothstep(0.745, 0.75, x) * (1 - 0.4 * smoothstep(0.75, 0.775, x))
    wall = tone[..., None] * np.array([0.30, 0.34, 0.34], np.float32) * (1 - 0.25 * panel)[..., None]
    return cv2.GaussianBlur(wall.astype(np.float32), (0, 0), side / 300).reshape(-1, 3)
