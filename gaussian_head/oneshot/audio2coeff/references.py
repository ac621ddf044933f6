"""A video's coefficients that another head follows: its pose, its blinks; repeated for as long as is spoken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.media.time_bases import Rate
from gaussian_head.oneshot.audio2coeff.streams import retimed

Loop = Literal["bounce", "wrap"]


def repeated(rows: Float[ndarray, "N M"], loop: Loop, rows_fps: Rate = 25, fps: Rate = 25) -> Iterator[ndarray]:
    """Return rows without end.

    Args:
        rows: A sequence.
        loop: bounce: forth and back, so that nothing jumps. wrap: from the last straight to the first (the reference).
        rows_fps: Its frames a second.
        fps: Frames a second that are wanted.
    """
    if rows_fps != fps:
        wanted = max(1, round(len(rows) * fps / rows_fps))
        rows = np.stack(list(retimed(iter(rows), rows_fps, fps, wanted)))
    turn = np.concatenate([rows, rows[-2:0:-1]]) if loop == "bounce" else rows
    while True:
        yield from turn


def with_pose_of(
    moved: Iterator[ndarray], poses: Float[ndarray, "N 6"], loop: Loop, poses_fps: Rate = 25, fps: Rate = 25
) -> Iterator[ndarray]:
    """Add a video's head motion, relative to its first frame, to a motion; ends with that.

    Args:
        moved: Poses, one after the other.
        poses: The video's.
        loop: How the video goes on when it is too short.
        poses_fps: Its frames a second.
        fps: Frames a second of `moved`.
    """
    followed = repeated(np.float32(poses), loop, poses_fps, fps)
    return (row + other - poses[0] for row, other in zip(moved, followed, strict=False))
