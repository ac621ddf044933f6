"""What a face renderer sees of a motion: 27 frames around each (specs/one_shot.md 3.6, specs/vico.md 7.2).

T frames, M numbers a motion vector (70, or 73 with the crop: `geometry.coefficients`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.media.time_bases import window_rows

RADIUS = 13
"""Frames on either side. A live stream is as much late, or repeats its last frame."""
SIZE = 2 * RADIUS + 1
EXPRESSION_SHARE = 0.3
"""Of the distance between two faces by which PIRender compares their scales; the rest is the angles'."""


def semantic_windows(
    motion: Float[ndarray, "T M"], frames: slice | Int64[ndarray, "N"] = slice(None)
) -> Float[ndarray, "N M 27"]:
    """Cut the window of every frame wanted; beyond the ends the first and the last frame are repeated.

    Args:
        motion: Of the whole clip.
        frames: Which frames' windows: a few at a time, as all of them take 27 times the motion's memory.
    """
    centres = np.arange(len(motion))[frames]
    return motion[window_rows(centres - RADIUS, SIZE, len(motion))].swapaxes(1, 2)


def still_window(vector: Float[ndarray, " M"]) -> Float[ndarray, "M 27"]:
    """Return the window of a face that does not move: the source's."""
    return np.repeat(vector[:, None], SIZE, 1)


def contiguous_rows(frames: int, rows: int) -> Int64[ndarray, "B S"]:
    """Deal frames out as SadTalker does: each row of a batch gets frames that follow each other.

    Args:
        frames: T.
        rows: B. The last frame is repeated until all rows are of one length S = ceil(T / B).

    Raises:
        ValueError: There is no frame, or no row.
    """
    if frames < 1 or rows < 1:
        raise ValueError(f"contiguous_rows: expected at least one frame and one row, got {frames} and {rows}.")
    steps = -(-frames // rows)
    return np.minimum(np.arange(rows * steps), frames - 1).reshape(rows, steps)


def crop_ratio(source: FaceCoefficients, target: FaceCoefficients) -> float:
    """Return what another person's crop scale must be multiplied by to be the source's.

    Both scales are compared in the frame in which the two faces are most alike.

    Args:
        source: One frame, of the person shown.
        target: The person who moves it, every frame.

    Raises:
        ValueError: A crop is not known.
    """
    if source.crop is None or target.crop is None:
        raise ValueError("crop_ratio: expected the crops of both people; extract their coefficients from pictures.")
    expression, angles = (
        np.abs(getattr(target, part) - getattr(source, part)[:1]).mean(1) for part in ("expression", "angles")
    )
    alike = int(np.argmin(EXPRESSION_SHARE * expression + (1 - EXPRESSION_SHARE) * angles))
    return float(source.crop[0, 0] / target.crop[alike, 0])
