"""Soft coverage of the person in a frame: a segmentation network's mask, sharpened against the picture.

The network sees 256 px; its mask is brought to the frame's edges by a guided filter (He et al. 2013, with the frame as
guide), and its tails are cut so that certain background is exactly 0 and certain person exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

PersonSegmenter = Callable[[UInt8[ndarray, "H W 3"]], Float[ndarray, "H W"]]
"""RGB in 0..255 -> coverage by the person in [0, 1], same size."""

EDGE_CONTRAST = 8.0
"""Colour steps (0..255) above this stop the guided filter."""
TAIL = 0.25
"""Coverage below this becomes 0, above 1 - TAIL becomes 1."""


def mediapipe_segmenter() -> PersonSegmenter:
    """Load MediaPipe's general person segmentation, whose weights come with its wheel."""
    import mediapipe

    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)

    def segment(frame: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"]:
        return network.process(frame).segmentation_mask

    return segment


def sharpen_to_edges(
    mask: Float[ndarray, "H W"], guide: UInt8[ndarray, "H W 3"], radius_px: int
) -> Float[ndarray, "H W"]:
    """Move the border of a soft mask onto the picture's edges nearby.

    Args:
        mask: Values in [0, 1].
        guide: The frame, RGB in 0..255.
        radius_px: How far an edge may attract the border.

    Returns:
        Values in [0, 1].
    """
    smooth = cv2.ximgproc.guidedFilter(guide, np.float32(mask), radius_px, EDGE_CONTRAST**2, scale=0.5)
    return np.clip(smooth, 0.0, 1.0)


def cut_tails(mask: Float[ndarray, "H W"], tail: float = TAIL) -> Float[ndarray, "H W"]:
    """Stretch [tail, 1 - tail] to [0, 1], so that haze becomes nothing and near-certainty certain."""
    return np.clip((mask - tail) / (1 - 2 * tail), 0.0, 1.0)


def fill_small_holes(mask: Float[ndarray, "H W"], largest: float = 0.004) -> Float[ndarray, "H W"]:
    """Raise to 1 the small holes deep inside a soft mask (ear-rings, glints), up to `largest` of the picture each."""
    holes = np.uint8(mask < 0.5)
    margin = max(round(0.02 * mask.shape[1]), 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < largest * mask.size)
    small = small[small > 0]
    outside = np.uint8(holes & ~np.isin(labels, small))
    deep = cv2.distanceTransform(1 - outside, cv2.DIST_L2, 3) > margin
    rim = cv2.dilate(np.uint8(np.isin(labels, small) & deep), np.ones((5, 5), np.uint8)) > 0
    return np.where(rim, np.float32(1.0), mask)
