"""Where the head is in a picture: axes of the face, the line between head and neck, and the way to a reference pose."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num
from numpy import ndarray

from gaussian_head.geometry.landmarks import FACE_OVAL, INNER_LIPS, JAW_LINE, RIGID

FOREHEAD, CHIN = 10, 152
EAR_LOBES = ((361, 288), (132, 58))
"""Mesh points above and below the ear lobe, the subject's left and right."""
JAW_MARGIN = 0.02
"""The head ends this far below the landmarks' jaw line, in face heights."""


@dataclass(frozen=True)
class FaceAxes:
    """The chin (px), unit vectors `right` and `down` of the face in the picture, and the face's height (px)."""

    chin: Float[ndarray, "2"]
    right: Float[ndarray, "2"]
    down: Float[ndarray, "2"]
    height_px: float

    @classmethod
    def from_landmarks(cls, landmarks: Float[ndarray, "478 D"]) -> FaceAxes:
        """Measure the axes from the mesh (px)."""
        chin, forehead = landmarks[CHIN, :2].astype(np.float64), landmarks[FOREHEAD, :2].astype(np.float64)
        span = chin - forehead
        height = float(np.linalg.norm(span))
        down = span / max(height, 1e-6)
        # Seen from the side or nodding, the face is shorter in the picture but the head is not smaller.
        width = float(np.linalg.norm(landmarks[454, :2] - landmarks[234, :2]))
        return cls(chin, np.array([down[1], -down[0]]), down, max(height, 1.2 * width, 1.0))

    def coordinates(self, height: int, width: int) -> tuple[Float[ndarray, "H W"], Float[ndarray, "H W"]]:
        """Return per pixel (across, below): face heights to the right of, and below, the chin."""
        x = np.arange(width, dtype=np.float32)[None] + 0.5 - self.chin[0]
        y = np.arange(height, dtype=np.float32)[:, None] + 0.5 - self.chin[1]
        across = (x * self.right[0] + y * self.right[1]) / self.height_px
        below = (x * self.down[0] + y * self.down[1]) / self.height_px
        return np.float32(across), np.float32(below)


def polygon_mask(points: Float[ndarray, "N 2"], height: int, width: int) -> Bool[ndarray, "H W"]:
    """Rasterize a closed polygon (px, pixel centres at integers + 0.5)."""
    mask = np.zeros((height, width), np.uint8)
    fixed = np.round((np.asarray(points, np.float64) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed.reshape(-1, 1, 2)], 1, shift=4)
    return mask > 0


def face_mask(landmarks: Float[ndarray, "478 D"], height: int, width: int) -> Bool[ndarray, "H W"]:
    """Rasterize the oval of the face."""
    return polygon_mask(landmarks[FACE_OVAL, :2], height, width)


def inner_mouth_mask(landmarks: Float[ndarray, "478 D"], height: int, width: int) -> Bool[ndarray, "H W"]:
    """Rasterize what lies between the lips; empty when they touch."""
    return polygon_mask(landmarks[INNER_LIPS, :2], height, width)


def above_jaw_mask(landmarks: Float[ndarray, "478 D"], height: int, width: int) -> Bool[ndarray, "H W"]:
    """Rasterize the half of the picture above the jaw line, continued outwards from the ear lobes."""
    axes = FaceAxes.from_landmarks(landmarks)
    jaw = landmarks[JAW_LINE, :2]
    left_lobe, right_lobe = (landmarks[list(pair), :2].mean(0) for pair in EAR_LOBES)
    along = (jaw - axes.chin) @ axes.down
    low = jaw[along > max((left_lobe - axes.chin) @ axes.down, (right_lobe - axes.chin) @ axes.down)]
    low = (low if len(low) else axes.chin[None]) + JAW_MARGIN * axes.height_px * axes.down
    far = 8 * max(height, width)
    border = np.concatenate([
        [left_lobe + far * axes.right], [left_lobe], low, [right_lobe], [right_lobe - far * axes.right],
        [axes.chin - far * (axes.right + axes.down)], [axes.chin + far * (axes.right - axes.down)],
    ])  # fmt: skip
    return polygon_mask(border, height, width)


def similarity(source: Float[ndarray, "478 D"], target: Float[ndarray, "478 D"]) -> Float[ndarray, "2 3"]:
    """Fit the rotation, scale and shift of the picture that carries one frame's head onto another's (least squares).

    Args:
        source: Landmarks of the first frame, px.
        target: Landmarks of the second, px.

    Returns:
        Matrix for pixel positions (x, y, 1) with pixel centres at integers + 0.5.
    """
    a, b = source[RIGID, :2].astype(np.float64), target[RIGID, :2].astype(np.float64)
    a0, b0 = a.mean(0), b.mean(0)
    p, q = (a - a0) @ [1, 1j], (b - b0) @ [1, 1j]
    turn = (np.conj(p) @ q) / max((np.conj(p) @ p).real, 1e-9)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.concatenate([linear, (b0 - linear @ a0)[:, None]], 1)


def warp(image: Num[ndarray, "H W *C"], matrix: Float[ndarray, "2 3"]) -> Num[ndarray, "H W *C"]:
    """Carry a picture along `matrix` (as `similarity` gives it), linear interpolation, borders repeated."""
    centred = matrix.copy()
    centred[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    height, width = image.shape[:2]
    return cv2.warpAffine(image, centred, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def fill_missing(landmarks: Float[ndarray, "T 478 D"]) -> Float[ndarray, "T 478 D"]:
    """Interpolate the landmarks of frames without a face (NaN rows) linearly in time; the ends are repeated.

    Raises:
        ValueError: No frame has a face.
    """
    valid = np.isfinite(landmarks).all((1, 2))
    if not valid.any():
        raise ValueError("landmarks: expected a face in some frames, found none; use a video that shows a face.")
    if valid.all():
        return landmarks
    known, frames = np.flatnonzero(valid), np.arange(len(landmarks))
    right = np.clip(np.searchsorted(known, frames), 0, len(known) - 1)
    left = np.clip(right - (known[right] > frames), 0, None)
    low, high = known[left], known[right]
    weight = np.clip((frames - low) / np.maximum(high - low, 1), 0, 1)[:, None, None]
    return ((1 - weight) * landmarks[low] + weight * landmarks[high]).astype(landmarks.dtype)
