"""Rendered squares put back into the portrait they were cut from (specs/one_shot.md 5, and 8, bug 12).

Outside of the mask every pixel stays what it was; the mask is 0 along the border of the square, so that no seam shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from gaussian_head.media.image import fill_polygon, resize
from gaussian_head.oneshot.source.crop import Box

PasteMethod = Literal["box", "face", "seamless"]
"""box: all of the square, fading out towards its border; face: the face alone, fading out around it; seamless: OpenCV's
Poisson cloning of all of the square, as SadTalker does, which is slow and changes colours: for comparison."""
FADE_SHARE = 0.1
"""Width of the fading border, in sides of the square (box) or of the face (face)."""
GROWTH_SHARE = 0.1
"""The face's mask reaches beyond its outline by this share of the face: jaws drop."""
TRUSTED_ALPHA = 0.25
"""Where the picture is more transparent, less and less of the frame is taken: its straight colours are hardly known."""
FOREHEAD = 0.9
"""Height of the forehead above the brows, in distances from the brows to the tip of the nose."""


class Paster:
    """Puts frames into one picture."""

    def __init__(
        self,
        picture: UInt8[ndarray, "H W 3"],
        box: Box,
        landmarks: Float[ndarray, "68 2"],
        method: PasteMethod = "box",
        alpha: UInt8[ndarray, "H W"] | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        """Prepare.

        Args:
            picture: RGB, 0..255, with straight colours where there is an alpha channel.
            box: What the frames show of it; its part beyond the picture is thrown away.
            landmarks: Of the picture, px, pixel centres at + 0.5.
            method: See `PasteMethod`.
            alpha: Of the picture; the results then have it, too.
            background: What the frames show where the picture is transparent.
        """
        self._picture, self._box, self._method = picture, box, method
        self._alpha, self._background = alpha, np.float32(background)
        self._inside = box.within(picture.shape[1], picture.shape[0])
        self.mask = mask_of(box, self._inside, landmarks, method)
        """How much of the frame is seen at each pixel of the box's part within the picture, 0..1."""

    def stream(self, frames: Iterable[UInt8[ndarray, "S S 3"]]) -> Iterator[UInt8[ndarray, "H W C"]]:
        """Paste one frame after the other, each into a new copy of the picture."""
        return map(self.paste, frames)

    def paste(self, frame: UInt8[ndarray, "S S 3"]) -> UInt8[ndarray, "H W C"]:
        """Paste one frame of any size; RGB, or RGBA with the picture's own alpha."""
        inside, box = self._inside, self._box
        rows, columns = slice(inside.top, inside.bottom), slice(inside.left, inside.right)
        seen = resize(np.ascontiguousarray(frame), box.width, box.height)
        seen = seen[inside.top - box.top :, inside.left - box.left :][: inside.height, : inside.width]
        out = self._picture.copy()
        if self._method == "seamless":
            out[rows, columns] = _cloned(seen, out[rows, columns])
        else:
            still, new, mask = np.float32(out[rows, columns]), np.float32(seen), self.mask
            if self._alpha is not None:
                share = np.float32(self._alpha[rows, columns]) / 255
                new = self._uncomposed(new, share)
                mask = mask * np.minimum(1, share / TRUSTED_ALPHA)
            out[rows, columns] = np.clip(np.rint(still + mask[..., None] * (new - still)), 0, 255)
        return out if self._alpha is None else np.dstack([out, self._alpha])

    def _uncomposed(
        self, colors: Float32[ndarray, "h w 3"], share: Float32[ndarray, "h w"]
    ) -> Float32[ndarray, "h w 3"]:
        """Return the straight colours that, with this alpha in 0..1, look like these over the background."""
        straight = self._background + (colors - self._background) / np.maximum(share[..., None], 1 / 255)
        return np.clip(straight, 0, 255)


def mask_of(box: Box, inside: Box, landmarks: Float[ndarray, "68 2"], method: PasteMethod) -> Float32[ndarray, "h w"]:
    """Return how much of a frame is seen at each pixel of `inside`, a part of `box`: 0 along the border of the box."""
    to_edge_x, to_edge_y = (
        np.minimum(places, length - 1 - places)
        for places, length in (
            (np.arange(inside.left - box.left, inside.right - box.left), box.width),
            (np.arange(inside.top - box.top, inside.bottom - box.top), box.height),
        )
    )
    fade = max(1.0, FADE_SHARE * max(box.width, box.height))
    mask = _smooth(np.minimum(to_edge_x[None], to_edge_y[:, None]) / fade)
    if method == "face":
        mask *= _face_mask(inside, landmarks)
    return mask


def _face_mask(inside: Box, landmarks: Float[ndarray, "68 2"]) -> Float32[ndarray, "h w"]:
    """Return a mask that is 1 on the face and fades out around it."""
    points = landmarks - (inside.left, inside.top)
    brows, nose = points[17:27], points[30]
    outline = np.concatenate([points, brows + FOREHEAD * (brows.mean(0) - nose)])
    size = float(np.ptp(outline, axis=0).max())
    hull = cv2.convexHull(np.float32(outline))[:, 0]
    outside = np.uint8(~fill_polygon(hull, inside.width, inside.height))
    if not (outside == 0).any():
        return np.zeros(outside.shape, np.float32)
    away = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return _smooth(1 - (away - GROWTH_SHARE * size) / max(1.0, FADE_SHARE * size))


def _smooth(x: Float[ndarray, "*N"]) -> Float32[ndarray, "*N"]:
    """Rise from 0 at 0 to 1 at 1, level at both ends."""
    x = np.clip(x, 0, 1)
    return np.float32(x * x * (3 - 2 * x))


def _cloned(seen: UInt8[ndarray, "h w 3"], still: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    """Clone all of a frame; OpenCV wants the patch to lie within a larger picture, so the edge is repeated once."""
    height, width = still.shape[:2]
    framed = cv2.copyMakeBorder(still, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    everything = np.full((height, width), 255, np.uint8)
    middle = (2 + width // 2, 2 + height // 2)
    return cv2.seamlessClone(np.ascontiguousarray(seen), framed, everything, middle, cv2.NORMAL_CLONE)[2:-2, 2:-2]
