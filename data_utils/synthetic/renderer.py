"""Draws the person: camera, z-buffer, lights, colour. Twice the wanted resolution, then averaged (anti-aliasing)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from data_utils.synthetic.head import Expression, smoothstep
from data_utils.synthetic.mesh import normalized
from data_utils.synthetic.noise import octaves
from data_utils.synthetic.person import LABELS, Person
from data_utils.synthetic.raster import rasterize
from gaussian_head.geometry.cameras import Camera, project

OVERSAMPLING = 2
LIGHTS = (  # direction in the room (x right, y up, z to the camera), colour, width of the soft edge
    ((-0.55, 0.50, 0.70), (1.50, 1.42, 1.32), 0.35),
    ((0.85, 0.15, 0.50), (0.34, 0.38, 0.46), 0.40),
    ((0.55, 0.65, -0.55), (0.50, 0.50, 0.52), 0.10),
)
SKY, GROUND = np.array([0.36, 0.38, 0.42], np.float32), np.array([0.20, 0.16, 0.14], np.float32)
SCATTER = np.array([1.0, 0.45, 0.30], np.float32)
"""How far red, green and blue light bleed into the shadow of skin."""


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
        self._matte = np.isin(np.arange(len(LABELS)), [LABELS.index("torso"), LABELS.index("hair")])

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
        corner = self.person.faces[triangle]
        eye = np.linalg.inv(camera.viewmat)[:3, 3] * 100
        attributes = np.concatenate(
            [
                posed.normals @ room_from_head.T,
                normalized(eye - posed.vertices) @ room_from_head.T,
                posed.occlusion[:, None],
                self.person.uv,
            ],
            axis=1,
        ).astype(np.float32)  # [N, 9]
        values = sum(attributes[corner[:, i]] * weights[:, i : i + 1] for i in range(3))
        label = self.person.label[triangle]
        texel = _look_up(self.person.texture, values[:, 7], values[:, 8])
        picture = self._wall.copy().reshape(-1, 3)
        picture[pixel] = _shade(texel, values[:, :3], values[:, 3:6], values[:, 6:7], self._matte[label][:, None])
        labels = np.zeros(side * side, np.uint8)
        labels[pixel] = label
        picture = cv2.resize(picture.reshape(side, side, 3), (self.size, self.size), interpolation=cv2.INTER_AREA)
        return Rendered(_to_srgb(picture), _majority(labels.reshape(side, side)), posed.skin * 0.01)


def _look_up(texture: Float[ndarray, "h w 4"], u: Float[ndarray, "P"], v: Float[ndarray, "P"]) -> ndarray:
    """Sample a texture bilinearly (in rows of 1024: OpenCV's maps are at most 32767 px wide)."""
    rows = -(-len(u) // 1024)
    maps = np.zeros((2, rows * 1024), np.float32)
    maps[0, : len(u)], maps[1, : len(u)] = u, v
    maps = maps.reshape(2, rows, 1024)
    return cv2.remap(texture, maps[0], maps[1], cv2.INTER_LINEAR).reshape(-1, 4)[: len(u)]


def _shade(texel: ndarray, normal: ndarray, view: ndarray, occlusion: ndarray, matte: ndarray) -> ndarray:
    """Light every pixel; linear RGB. Soft-edged diffuse light whose red bleeds furthest, sky light, soft gloss."""
    normal = normal / np.sqrt((normal * normal).sum(1, keepdims=True)).clip(1e-6)
    light = GROUND + (SKY - GROUND) * (0.5 + 0.5 * normal[:, 1:2])
    gloss = np.zeros_like(texel[:, :3])
    for direction, color, wrap in LIGHTS:
        direction = np.asarray(direction, np.float32) / np.float32(np.linalg.norm(direction))
        color = np.asarray(color, np.float32)
        cosine = (normal @ direction)[:, None]
        soft = np.where(matte, np.float32(0.5), SCATTER) * wrap
        light += color * np.square(((cosine + soft) / (1 + soft)).clip(0)) ** 0.7
        half = view + direction
        facing = (np.einsum("ni,ni->n", normal, half) / np.linalg.norm(half, axis=1)).clip(0)[:, None]
        wet = (texel[:, 3:] > 0.78) & ~matte
        gloss += color * np.where(wet, 1.2 * facing**90, 0.16 * facing**14 + 0.10 * facing**40) * (cosine > -0.1)
    rim = (1 - np.einsum("ni,ni->n", normal, view).clip(0, 1))[:, None] ** 4
    gloss *= 1 + 2 * rim
    return occlusion * (texel[:, :3] * light + texel[:, 3:] * 0.55 * gloss)


def _to_srgb(linear: ndarray) -> UInt8[ndarray, "H W 3"]:
    """Compress the highlights and encode for the screen."""
    linear = linear * 1.05
    toned = linear * (1 + linear / 6.0) / (1 + 0.28 * linear)
    return (255 * toned.clip(0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


def _majority(labels: ndarray) -> ndarray:
    """Return for every block of oversampled pixels the label that holds most of it."""
    rows, columns = (side // OVERSAMPLING for side in labels.shape)
    blocks = labels.reshape(rows, OVERSAMPLING, columns, OVERSAMPLING)
    counts = np.stack([(blocks == value).sum((1, 3)) for value in range(len(LABELS))])
    return counts.argmax(0).astype(np.uint8)


def _wall(rng: np.random.Generator, side: int) -> Float[ndarray, "S S 3"]:
    """Paint a softly lit, slightly uneven wall (linear RGB)."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    glow = 0.55 + 0.5 * np.exp(-(((x - 0.25) / 0.6) ** 2 + ((y - 0.2) / 0.6) ** 2)) - 0.15 * y
    plaster = cv2.resize(octaves(rng, 256, 12, 4), (side, side), interpolation=cv2.INTER_CUBIC)
    tone = glow * (1 + 0.045 * plaster)
    panel = smoothstep(0.745, 0.75, x) * (1 - 0.4 * smoothstep(0.75, 0.775, x))
    wall = tone[..., None] * np.array([0.30, 0.34, 0.34], np.float32) * (1 - 0.25 * panel)[..., None]
    return cv2.GaussianBlur(wall.astype(np.float32), (0, 0), side / 300)
