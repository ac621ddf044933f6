"""Which part of a portrait a face renderer sees: FFHQ's square around the face, upright, in SadTalker's five modes.

Source: specs/one_shot.md 1.2. Boxes are whole pixels of the ORIGINAL picture (SadTalker shrinks pictures with large
faces first, and pastes at the shrunken picture's place: 8, bug 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8
from numpy import ndarray

from gaussian_head.media.image import resize

Mode = Literal["crop", "extcrop", "resize", "full", "extfull"]
"""crop: the face alone, a video of it; extcrop: with a margin; resize: the whole picture; full, extfull: cut like crop
and extcrop, and pasted back into the whole picture."""
Border = Literal["pad", "clamp"]
"""Of a square that reaches beyond the picture: pad, the picture's edge is repeated outwards, so that the face keeps its
shape; clamp, what is left of it is stretched to a square, as SadTalker does."""
REFERENCE_PX = 512
"""SadTalker shrinks a picture whose face is many times larger than this."""
MARGIN_SHARE, LEAST_MARGIN_PX = 0.1, 3


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels, from `left`, `top` to before `right`, `bottom`; may reach beyond the picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Return it in px."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Return it in px."""
        return self.bottom - self.top

    def within(self, width: int, height: int) -> Box:
        """Return the part inside a picture of that size."""
        return Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))

    def to_crop(self, points: Float[ndarray, "N 2"], side_px: int) -> Float[ndarray, "N 2"]:
        """Carry points (px of the picture, pixel centres at + 0.5) to px of the square crop."""
        return (points - (self.left, self.top)) * side_px / np.array([self.width, self.height])


def choose_box(landmarks: Float[ndarray, "68 2"], width: int, height: int, mode: Mode, border: Border = "pad") -> Box:
    """Choose what the renderer sees.

    Args:
        landmarks: Px of the picture, pixel centres at + 0.5.
        width: Of the picture, px.
        height: Likewise.
        mode: See `Mode`.
        border: See `Border`.

    Returns:
        A square; with `clamp` what the picture has of it.
    """
    if mode == "resize":
        low, high = np.zeros(2), np.array([width, height], float)
    else:
        corners = face_square(landmarks)
        low, high = corners.min(0), corners.max(0)
        if mode.startswith("ext"):
            margin = _margin(float(np.linalg.norm(corners[3] - corners[0])))
            low, high = low - margin, high + margin
    side = max(1, round(float((high - low).max())))
    left, top = np.rint((low + high - side) / 2).astype(int).tolist()
    box = Box(left, top, left + side, top + side)
    return box if border == "pad" else box.within(width, height)


def face_square(landmarks: Float[ndarray, "68 2"]) -> Float64[ndarray, "4 2"]:
    """Return FFHQ's oriented square (Karras et al. 2019) in the landmarks' unit: top left, bottom left, and round."""
    points = np.asarray(landmarks, np.float64)
    right_eye, left_eye = points[36:42].mean(0), points[42:48].mean(0)
    eyes, mouth = (right_eye + left_eye) / 2, (points[48] + points[54]) / 2
    apart, down = left_eye - right_eye, mouth - eyes
    along = apart - down[::-1] * (-1, 1)
    along *= max(2.0 * np.linalg.norm(apart), 1.8 * np.linalg.norm(down)) / np.linalg.norm(along)
    across = along[::-1] * (-1, 1)
    centre = eyes + 0.1 * down
    return np.stack(
        [centre - along - across, centre - along + across, centre + along + across, centre + along - across]
    )


@dataclass(frozen=True)
class ReferenceCrop:
    """What SadTalker's alignment returns."""

    width: int
    """Of the picture, which may have been shrunk, px."""
    height: int
    outer: Box
    """In that picture."""
    limits: tuple[float, float, float, float]
    """Left, top, right, bottom within `outer`."""

    @property
    def inner(self) -> Box:
        """Return the limits as whole pixels of that picture."""
        left, top, right, bottom = (int(limit) for limit in self.limits)
        x, y = self.outer.left, self.outer.top
        return Box(x + left, y + top, min(self.outer.right, x + right), min(self.outer.bottom, y + bottom))


def reference_crop(landmarks: Float[ndarray, "68 2"], width: int, height: int) -> ReferenceCrop:
    """Cut as SadTalker does, with its faults: for comparison with it alone.

    Its picture is shrunk where the face is very large, its landmarks have pixel centres at integers, and it limits the
    bottom of the inner box by the outer box's WIDTH.
    """
    corners = face_square(landmarks)
    size = float(np.linalg.norm(corners[3] - corners[0]))
    shrink = int(np.floor(size / REFERENCE_PX * 0.5))
    if shrink > 1:
        width, height = round(width / shrink), round(height / shrink)
        corners, size = corners / shrink, size / shrink
    margin = _margin(size)
    low, high = np.floor(corners.min(0)).astype(int) - margin, np.ceil(corners.max(0)).astype(int) + margin
    outer = Box(*low.tolist(), *high.tolist()).within(width, height)
    inside = corners - (outer.left, outer.top) + 0.5
    left, top = np.maximum([inside[:2, 0].min(), inside[[0, 3], 1].min()], 0)
    right, bottom = np.minimum([inside[2:, 0].max(), inside[1:3, 1].max()], outer.width)
    return ReferenceCrop(width, height, outer, (float(left), float(top), float(right), float(bottom)))


def cut(picture: UInt8[ndarray, "H W 3"], box: Box, side_px: int) -> UInt8[ndarray, "S S 3"]:
    """Cut a box out and resize it to a square; beyond the picture its edge is repeated.

    Raises:
        ValueError: Box and picture have no pixel in common.
    """
    height, width = picture.shape[:2]
    inside = box.within(width, height)
    if inside.width <= 0 or inside.height <= 0:
        raise ValueError(f"cut: {box} lies outside of the picture of {width} x {height} px.")
    part = picture[inside.top : inside.bottom, inside.left : inside.right]
    edges = inside.top - box.top, box.bottom - inside.bottom, inside.left - box.left, box.right - inside.right
    if any(edges):
        part = cv2.copyMakeBorder(part, *edges, cv2.BORDER_REPLICATE)
    return resize(np.ascontiguousarray(part), side_px, side_px)


def _margin(size: float) -> int:
    return max(round(MARGIN_SHARE * size), LEAST_MARGIN_PX)
