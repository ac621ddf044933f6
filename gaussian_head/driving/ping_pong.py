"""Endless motion from a finite clip: forth and back, turning around smoothly."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

TURN_SIGMA = 4.0
"""Standard deviation, in frames, of the easing at a turn."""


def ping_pong(clip_frames: int, frames: int, start: int = 0) -> Float[Tensor, " R"]:
    """Play a clip 0 .. n-1 .. 0 .. for as many frames as wanted, slowing down into each turn and out of it.

    Args:
        clip_frames: Frames of the clip, n.
        frames: Frames wanted, R.
        start: Frames that were played before: so a long play can be made in pieces.

    Returns:
        Positions in the clip, 0..n-1, in frames; that of frame 0 is 0. Neighbours differ by at most 1.
    """
    if clip_frames < 2:
        return torch.zeros(frames)
    last = clip_frames - 1
    sigma = min(TURN_SIGMA, last / 8)
    reach = int(8 * sigma) + 1
    steps = np.arange(start - reach, start + frames + reach, dtype=np.float64)
    # A triangle wave is mirrored at its ends; smoothing it rounds the corners and leaves the straight parts alone.
    triangle = last - np.abs(last - np.mod(steps, 2 * last))
    triangle = np.where(steps < 0, -triangle, triangle)  # straight through the start: no turn there
    eased = gaussian_filter1d(triangle, sigma, mode="nearest")[reach : reach + frames]
    return torch.from_numpy(np.clip(eased, 0, last).astype(np.float32))
