"""Stage `background`: the static picture behind the person (`bc.jpg`).

Per pixel the median of the frames in which it is surely uncovered; what the person covers throughout is continued
smoothly from around.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from data_utils.filling import push_pull
from data_utils.matting import read_matte
from data_utils.stage import Progress, count_frames, no_progress
from data_utils.uncovered import distance_to, uncovered_median
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.media.image import read_rgb, write_jpeg

FRAMES = 48
"""The median is taken over at most this many frames, spread over the clip: memory does not grow with its length."""
MARGINS = (0.02, 0.01)
"""Distances from the person (picture widths) from which on a pixel is background: the second if the first has none."""


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
        distances.append(distance_to(read_matte(layout.matte(k)) > 0))
    colours, known = _nearest_allowed(np.stack(frames), np.stack(distances))
    picture = push_pull(np.float32(colours), np.float32(known))
    write_jpeg(layout.background, np.uint8(np.clip(np.round(picture), 0, 255)))
    return {"frames": len(keys), "uncovered_share": round(float(known.mean()), 4)}


def _nearest_allowed(
    frames: UInt8[ndarray, "T H W 3"], distances: Float[ndarray, "T H W"]
) -> tuple[UInt8[ndarray, "H W 3"], Bool[ndarray, "H W"]]:
    """Take the uncovered median with the widest margin from the person that each pixel allows."""
    colours, known = uncovered_median(frames, distances > MARGINS[0])
    for margin in MARGINS[1:]:
        left = ~known
        colours[left], known[left] = uncovered_median(frames[:, left], distances[:, left] > margin)
    return colours, known
