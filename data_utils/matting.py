"""Soft coverage of the person in a frame: a segmentation network's mask, sharpened against the picture.

The network sees 256 px; its mask is brought to the frame's edges by a guided filter (He et al. 2013, with the frame as
guide), and its tails are cut so that certain background is exactly 0 and certain person exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.data.layout import PARSING_BACKGROUND, SubjectLayout
from gaussian_head.media.image import read_rgb
from gaussian_head.networks.face_mesh import quiet_stderr

PersonSegmenter = Callable[[UInt8[ndarray, "H W 3"]], Float[ndarray, "H W"]]
"""RGB in 0..255 -> coverage by the person in [0, 1], same size."""

EDGE_CONTRAST = 8.0
"""Colour steps (0..255) above this stop the guided filter."""
TAIL = 0.25
"""Coverage below this becomes 0, above 1 - TAIL becomes 1."""


def mediapipe_segmenter() -> PersonSegmenter:
    """Load MediaPipe's general person segmentation, whose weights come with its wheel."""
    import mediapipe

    with quiet_stderr():
        network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
        network.process(np.zeros((64, 64, 3), np.uint8))

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
    """Raise to 1 what lies deep inside a soft mask's outline: ear-rings, glints, hesitation.

    Args:
        mask: Values in [0, 1].
        largest: Gaps larger than this share of the picture, or touching its border, are no holes but outside.

    Returns:
        The mask, 1 farther than 2 % of the picture's width from the outside.
    """
    height, width = mask.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.uint8(mask < 0.5), connectivity=4)
    left, top, w, h, area = stats.T
    touches = (left == 0) | (top == 0) | (left + w == width) | (top + h == height)
    open_gap = touches | (area > largest * mask.size)
    open_gap[0] = False  # the mask itself
    deep = cv2.distanceTransform(np.uint8(~open_gap[labels]), cv2.DIST_L2, 3) > max(0.02 * width, 2)
    return np.where(deep, np.float32(1.0), mask)


def read_matte(path: Path) -> UInt8[ndarray, "H W"]:
    """Read a matte, 0..255."""
    return read_rgb(path)[..., 0]


def read_coverage(layout: SubjectLayout, k: int) -> UInt8[ndarray, "H W"]:
    """Read the person's coverage of a frame, 0..255: its matte, or, in folders of other tools, the parsing's mask."""
    path = layout.matte(k)
    if path.is_file():
        return read_matte(path)
    return 255 - cv2.inRange(read_rgb(layout.parsing(k)), PARSING_BACKGROUND, PARSING_BACKGROUND)
