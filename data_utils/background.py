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

FRAMES = 32
"""The median is taken over at most this many frames, spread over the clip: memory does not grow with its length."""
MARGINS = (0.02, 0.008)
"""Distances from the person (picture widths) from which on a pixel is background: the second if the first has none."""
TOLERANCE = 14.0
"""What only the second margin shows must agree so well with its surroundings: it may be a strand of hair."""


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
    picture, known = background_picture(np.stack(frames), np.stack(distances))
    write_jpeg(layout.background, np.uint8(np.clip(np.round(picture), 0, 255)))
    return {"frames": len(keys), "uncovered_share": round(float(known.mean()), 4)}


def background_picture(
    frames: UInt8[ndarray, "T H W 3"], distances: Float[ndarray, "T H W"]
) -> tuple[Float[ndarray, "H W 3"], Bool[ndarray, "H W"]]:
    """Take the median of the uncovered pixels and continue it over the others.

    Args:
        frames: RGB, 0..255.
        distances: To the nearest pixel of the person, in picture widths.

    Returns:
        RGB, 0..255, and where it was seen.
    """
    colours, known = uncovered_median(frames, distances > MARGINS[0])
    picture = push_pull(np.float32(colours), np.float32(known))
    left = ~known
    nearer, seen = uncovered_median(frames[:, left], distances[:, left] > MARGINS[1])
    agrees = seen & (np.abs(nearer - picture[left]).max(-1) < TOLERANCE)
    colours[left], known[left] = nearer, agrees
    return push_pull(np.float32(colours), np.float32(known)), known
