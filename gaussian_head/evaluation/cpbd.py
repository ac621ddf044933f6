"""CPBD: the share of edges that look sharp, from the picture alone (specs/metrics.md section 2.3).

After Narvekar and Karam, "A no-reference image blur metric based on the cumulative probability of blur detection",
IEEE Transactions on Image Processing 20 (2011), as python-cpbd 1.0.7 computes it. In [0, 1], larger is sharper.
"""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from gaussian_head.evaluation.metric import ClipFacts, Entry, FrameMetric, Pair, Unavailable

BLOCK = 64
"""Side of the blocks that are judged, in px."""
EDGES_OF_A_BLOCK = 0.002 * BLOCK * BLOCK
"""A block with more edge pixels than this counts."""
LOW_CONTRAST = 50
"""Up to this range of grey levels within a block, 5 px of blur go unnoticed; beyond it 3 px."""
LONGEST_SIDE = 101
"""An edge is followed this far to each side, in px."""
HEAD_SIDE = 2 * BLOCK
"""A head's box below this holds too few blocks to say anything."""


class Cpbd(FrameMetric):
    """Sharpness of the picture, and of the box around the head."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "cpbd", "CPBD", "", "higher", frozenset(),
            "ViCo challenge: python-cpbd 1.0.7; specs/metrics.md section 2.3", "{:.4f}",
        ),
    )  # fmt: skip
    regions: ClassVar[tuple[str, ...]] = ("full", "head")

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        try:
            import skimage.feature  # noqa: F401 -- here to fail before the first frame
        except ImportError as error:
            raise Unavailable("needs scikit-image; install it: pip install -e '.[evaluate]'") from error

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the sharpness; None where a picture or box is too small."""
        gray = pair.picture.gray
        values = {("cpbd", "full"): measure_cpbd(gray) if min(gray.shape) >= BLOCK else None}
        head = pair.regions.get("head")
        if head is not None and head.mask.any() and min(gray[head.box].shape) >= HEAD_SIDE:
            values["cpbd", "head"] = measure_cpbd(gray[head.box])
        return values

    def why_excluded(self, region: str) -> str:
        """Say why a frame may have no value."""
        if region == "head":
            return f"no face found, or a side of its box is under {HEAD_SIDE} px"
        return f"a side of the picture is under {BLOCK} px"


def measure_cpbd(gray: UInt8[np.ndarray, "H W"]) -> float:
    """Return the share of edges no wider than is just noticeable, over the blocks that have edges; 0 without any.

    Args:
        gray: 0..255, rounded to whole levels (as the reference has it; the unrounded luma gives other figures).
    """
    high, wide = (side // BLOCK for side in gray.shape)
    if not high or not wide:
        return 0.0
    rows, columns, widths = edge_widths(gray)
    inside = (rows < high * BLOCK) & (columns < wide * BLOCK)
    shape = (high, BLOCK, wide, BLOCK)
    blocks = gray[: high * BLOCK, : wide * BLOCK].reshape(shape)
    contrast = blocks.max(1).max(2).astype(int) - blocks.min(1).min(2)
    edges = decision_edges(gray)[: high * BLOCK, : wide * BLOCK].reshape(shape)
    counts = edges.sum(1, dtype=np.uint8).sum(2) > EDGES_OF_A_BLOCK
    block = rows[inside] // BLOCK, columns[inside] // BLOCK
    counted = counts[block]
    noticeable = np.where(contrast[block] <= LOW_CONTRAST, 5, 3)
    sharp = widths[inside] <= noticeable
    return float(sharp[counted].mean()) if counted.any() else 0.0


def decision_edges(gray: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return Canny's edges, by which blocks are chosen: thresholds meant for [0, 1] on 0..255, that is nearly none."""
    from skimage.feature import canny

    return canny(gray.astype(np.float64))


def measured_edges(gray: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the pixels where the horizontal derivative is strong and the largest of its row or column neighbours."""
    slope = cv2.Sobel(gray, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REFLECT)
    strength = slope * slope  # 64 times the reference's, whose kernel sums to 1: integers below 2^24, exact
    # The reference compares the square with a root: in its units, strength <= 2 sqrt(mean strength).
    strength[strength <= math.floor(64 * 2 * math.sqrt(strength.mean(dtype=np.float64) / 64))] = 0
    padded = cv2.copyMakeBorder(strength, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    beside = np.maximum(padded[1:-1, :-2], padded[1:-1, 2:])
    above = np.maximum(padded[:-2, 1:-1], padded[2:, 1:-1])
    return strength > np.minimum(beside, above)


def edge_widths(
    gray: UInt8[np.ndarray, "H W"],
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Return row, column and width in px of the measured edges that run upright (gradient within 22.5 deg of a row).

    To each side an edge reaches as far as the grey values go on rising, or falling, from the neighbouring pixel on.
    """
    rows, columns = (inner + 1 for inner in np.nonzero(measured_edges(gray)[1:-1, 1:-1]))
    padded = np.pad(gray, ((0, 0), (1, 1)), mode="edge")  # doubled borders end every walk: equal values do
    levels, stride = padded.ravel().astype(np.int16), padded.shape[1]
    at = rows * stride + columns + 1
    across, down = levels[at + 1] - levels[at - 1], levels[at + stride] - levels[at - stride]
    eighth = np.where(across != 0, np.rint(np.degrees(np.arctan2(down, across, dtype=np.float64)) / 45), 0)
    upright = (eighth == 0) | (np.abs(eighth) == 4)
    at, slope = at[upright], np.where(eighth[upright] == 0, 1, -1)
    widths = _reach(levels, at - 1, -1, -slope) + _reach(levels, at + 1, 1, slope)
    return rows[upright], columns[upright], widths


def _reach(
    levels: Int[np.ndarray, " HW"], here: Int[np.ndarray, " N"], step: int, slope: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """Return how many px, from `here` on and at least 1, the levels strictly rise (slope 1) or fall (-1) by steps."""
    reach, walking = np.ones(len(here), np.int64), np.arange(len(here))
    for _ in range(1, LONGEST_SIDE):
        onward = (levels[here + step] - levels[here]) * slope > 0
        walking, here, slope = walking[onward], here[onward] + step, slope[onward]
        if not len(walking):
            break
        reach[walking] += 1
    return reach
