"""Stage `background`: the static picture behind the person (`bc.jpg`).

Per pixel the median of the frames in which it is surely uncovered; what the person covers throughout is continued
smoothly from around.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.filling import push_pull
from data_utils.matting import read_matte
from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.media.image import read_rgb, write_jpeg

FRAMES = 48
"""The median is taken over at most this many frames, spread over the clip: memory does not grow with its length."""
MARGINS = (0.02, 0.006)
"""Distances from the person (picture widths) at which a pixel counts as background; the second where the first has none."""
LEAST_FRAMES = 2


def extract_background(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `bc.jpg`.

    Args:
        layout: Subject folder with frames and mattes.
        progress: Wraps the loop over frames.

    Returns:
        Facts for the manifest: the share of the picture that some frame shows uncovered.
    """
    count = count_frames(layout)
    keys = np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int)).tolist()
    frames, distances = [], []
    for k in progress(keys, len(keys), "background"):
        frames.append(read_rgb(layout.frame(k)))
        distances.append(_distance_to_person(read_matte(layout.matte(k))))
    colours, known = uncovered_median(np.stack(frames), np.stack(distances))
    picture = push_pull(np.float32(colours), np.float32(known))
    write_jpeg(layout.background, np.uint8(np.clip(np.round(picture), 0, 255)))
    return {"frames": len(keys), "uncovered_share": round(float(known.mean()), 4)}


def uncovered_median(
    frames: UInt8[ndarray, "T H W 3"], distances: Float[ndarray, "T H W"]
) -> tuple[UInt8[ndarray, "H W 3"], Bool[ndarray, "H W"]]:
    """Take each pixel's median over the frames in which it lies far enough from the person.

    Args:
        frames: RGB, 0..255.
        distances: To the nearest pixel of the person, in picture widths.

    Returns:
        Colours (0 where unknown) and where they are known.
    """
    colours = np.zeros(frames.shape[1:], np.uint8)
    known = np.zeros(frames.shape[1:3], bool)
    for margin in MARGINS:
        wanted = ~known
        median, enough = _masked_median(frames[:, wanted], distances[:, wanted] > margin)
        colours[wanted] = median
        known[wanted] = enough
    return colours, known


def _masked_median(
    values: UInt8[ndarray, "T P 3"], mask: Bool[ndarray, "T P"]
) -> tuple[UInt8[ndarray, "P 3"], Bool[ndarray, "P"]]:
    """Take the lower median over the frames where `mask` holds; 0 where fewer than LEAST_FRAMES do."""
    counts = mask.sum(0)
    enough = counts >= min(LEAST_FRAMES, len(values))
    ordered = np.sort(np.where(mask[..., None], values, np.uint8(255)), axis=0)  # unmasked values come last
    middle = np.maximum(counts - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[None, :, None], axis=0)[0]
    return np.where(enough[:, None], median, np.uint8(0)), enough


def _distance_to_person(matte: UInt8[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Measure each pixel's distance to the nearest covered one, in picture widths."""
    return cv2.distanceTransform(np.uint8(matte == 0), cv2.DIST_L2, 3) / matte.shape[1]
