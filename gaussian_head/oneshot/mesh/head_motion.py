"""How the whole head moves in the picture: a smooth field that carries head and hair, and dies away around them.

Face and hair turn as a solid body about the neck, each pixel at its own depth. Below the chin the motion fades over the
neck into the shoulders, which only breathe; beside the head it fades over a band of background, so that nothing hidden
is uncovered; at the picture's border it is zero.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from gaussian_head.geometry.landmarks import FACE_OVAL
from gaussian_head.oneshot.mesh.rig import SKIN_POINTS, FaceFrame

STRIDE = 8
"""Pixels to a cell of the grid on which the field is told."""
PIVOT = np.array([0.0, 0.42, 0.42])
"""Where a head turns, in face axes and heights: the upper end of the spine."""
BAND = 0.34
"""Face heights of background that give way beside the head."""
NECK = (-0.02, 0.72)
"""Below the chin, face heights: the head's motion ends where the shoulders begin."""
BORDER = 0.16
"""Face heights along the picture's border over which motion fades."""
HAIR_SLOPE, HAIR_DEPTH = 0.45, 0.32
"""Beyond the face's oval the head falls back by so much, and no farther than that, face heights."""
LEAST = 0.01
"""Smaller shares of the motion are none: there the portrait stands still, bit for bit."""
BREATH_DEPTH = 1.4
"""The chest breathes; face heights below the chin where that is felt in full."""


class HeadMotion:
    """The field of one picture."""

    def __init__(
        self,
        landmarks: Float[ndarray, "478 3"],
        frame: FaceFrame,
        person: Float[ndarray, "H W"],
        shape: tuple[int, int],
    ) -> None:
        """Lay out where motion reaches.

        Args:
            landmarks: Of the face, px (pixel centres at + 0.5).
            frame: Of the face.
            person: Coverage by the person, 0..1.
            shape: Height and width of the picture, px.
        """
        self.frame, self.shape = frame, shape
        height, width = shape
        rows, columns = -(-height // STRIDE) + 1, -(-width // STRIDE) + 1
        # Corner-aligned: cell (i, j) is the place (j, i) * STRIDE, in px with pixel centres at + 0.5.
        x, y = np.meshgrid(np.arange(columns) * STRIDE, np.arange(rows) * STRIDE)
        self._places = np.stack([x, y], -1).astype(np.float64)
        depth = self._depth(landmarks)
        self._solid = np.concatenate([self._places, depth[..., None]], -1)
        self._local = frame.local(self._solid) - PIVOT
        self.head, self.chest = self._reach(person, landmarks)

    def _depth(self, landmarks: Float[ndarray, "478 3"]) -> Float[ndarray, "h w"]:
        """Return z (px) all over the grid: the face's own, and behind its oval what hair and neck may have."""
        from scipy.interpolate import LinearNDInterpolator

        inside = LinearNDInterpolator(landmarks[:SKIN_POINTS, :2], landmarks[:SKIN_POINTS, 2])(self._places)
        oval = landmarks[FACE_OVAL]
        dense = np.concatenate([oval + (np.roll(oval, -1, 0) - oval) * f for f in (0, 0.25, 0.5, 0.75)])
        flat = self._places.reshape(-1, 1, 2) - dense[None, :, :2]
        distance = np.linalg.norm(flat, axis=-1)
        near = np.exp(-((distance / (0.25 * self.frame.height_px)) ** 2)) + 1e-9 / (1 + distance)
        edge = (near * dense[:, 2]).sum(1) / near.sum(1)
        h = self.frame.height_px
        behind = edge + np.minimum(HAIR_SLOPE * distance.min(1), HAIR_DEPTH * h)
        depth = np.where(np.isfinite(inside), inside, behind.reshape(inside.shape))
        return cv2.GaussianBlur(depth, (0, 0), max(0.05 * h / STRIDE, 0.8))

    def _reach(
        self, person: Float[ndarray, "H W"], landmarks: Float[ndarray, "478 3"]
    ) -> tuple[Float[ndarray, "h w"], Float[ndarray, "h w"]]:
        """Return how far each place goes with the head, and with the chest, 0..1."""
        h = self.frame.height_px
        body = np.uint8(person > 0.5)
        cv2.fillConvexPoly(body, cv2.convexHull(np.int32(landmarks[FACE_OVAL, :2])), 1)
        away = cv2.distanceTransform(1 - body, cv2.DIST_L2, 5)
        near = _eased(1 - self._sample(away) / (BAND * h))
        down = self.frame.axes[1, :2] / max(float(np.linalg.norm(self.frame.axes[1, :2])), 1e-6)
        chin = landmarks[152, :2]
        below = (self._places - chin) @ down / h
        side = np.abs((self._places - chin) @ np.array([-down[1], down[0]])) / h
        # Beside the neck hair hangs free: there the motion reaches a little farther down.
        fade = 1 - _eased((below - NECK[0]) / (NECK[1] - NECK[0]))
        far = _eased((1.9 - np.linalg.norm((self._places - landmarks[[10, 152], :2].mean(0)) / h, axis=-1)) / 0.5)
        height, width = self.shape
        x, y = self._places[..., 0], self._places[..., 1]
        margin = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
        border = _eased((margin - STRIDE) / (BORDER * h))  # zero in the outermost cell, not only on its edge
        chest = _eased((below - 0.1) / BREATH_DEPTH) * np.exp(-((side / 2.2) ** 2)) * near * border
        soft = max(0.05 * h / STRIDE, 0.8)
        smooth = (cv2.GaussianBlur(part * border, (0, 0), soft) * border for part in (near * fade * far, chest))
        return tuple(np.where(part > LEAST, part, 0) for part in smooth)

    def _sample(self, picture: Float[ndarray, "H W"]) -> Float[ndarray, "h w"]:
        x, y = (self._places - 0.5).astype(np.float32).transpose(2, 0, 1)
        return cv2.remap(np.float32(picture), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def forward(
        self, turn: Float[ndarray, "3 3"], shift: Float[ndarray, "3"], breath: float
    ) -> Float32[ndarray, "h w 2"]:
        """Return where each place of the grid goes, px.

        Args:
            turn: Rotation in face axes.
            shift: Translation of the head in face axes, face heights.
            breath: Rise of the chest, face heights.
        """
        moved = self._local @ (turn - np.eye(3)).T + shift
        px = (moved @ self.frame.axes)[..., :2] * self.frame.height_px
        lift = -breath * self.frame.height_px * self.frame.axes[1, :2]
        return np.float32(self.head[..., None] * px + self.chest[..., None] * lift)

    def backward(self, forward: Float32[ndarray, "h w 2"]) -> Float32[ndarray, "h w 2"]:
        """Return, for each place of the moved picture, the way back to where it came from (fixed point), px."""
        x0, y0 = np.float32(self._places / STRIDE).transpose(2, 0, 1)
        back = -forward
        for _ in range(3):
            x, y = x0 + back[..., 0] / STRIDE, y0 + back[..., 1] / STRIDE
            back = -cv2.remap(forward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return back

    def full(self, field: Float32[ndarray, "h w 2"]) -> Float32[ndarray, "H W 2"]:
        """Bring a field of the grid to every pixel."""
        height, width = self.shape
        scale = 1 / STRIDE
        # The grid's place (j, i) * STRIDE is the pixel index j * STRIDE - 0.5.
        matrix = np.array([[scale, 0, 0.5 * scale], [0, scale, 0.5 * scale]])
        return cv2.warpAffine(field, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _eased(share: ndarray) -> ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
