"""The static background where some frame of a clip shows it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

LEAST_FRAMES = 2
"""A pixel's background is known when at least this many frames show it."""


def uncovered_median(
    frames: UInt8[ndarray, "T *P 3"], uncovered: Bool[ndarray, "T *P"]
) -> tuple[UInt8[ndarray, "*P 3"], Bool[ndarray, "*P"]]:
    """Take each pixel's (lower) median over the frames in which it is uncovered.

    Args:
        frames: Colours, 0..255.
        uncovered: Where each frame shows the background.

    Returns:
        Colours, 0 where fewer than LEAST_FRAMES frames show them, and where they are known.
    """
    counts = uncovered.sum(0)
    known = counts >= min(LEAST_FRAMES, len(frames))
    ordered = np.sort(np.where(uncovered[..., None], frames, np.uint8(255)), axis=0)  # the covered ones come last
    middle = np.maximum(counts - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[None, ..., None], axis=0)[0]
    return np.where(known[..., None], median, np.uint8(0)), known


def distance_to(mask: Bool[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Measure each pixel's distance to the nearest one of the mask, in picture widths (huge where there is none)."""
    return cv2.distanceTransform(np.uint8(~mask), cv2.DIST_L2, 3) / mask.shape[1]
