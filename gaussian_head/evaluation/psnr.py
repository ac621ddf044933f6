"""Peak signal-to-noise ratio, over a picture or a part of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

BEST_DB = 100.0
"""Reported for equal pictures."""


def measure_psnr(
    picture: UInt8[np.ndarray, "H W 3"],
    truth: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Return -10 log10 of the mean squared difference (of values in [0, 1]), in dB.

    Args:
        picture: RGB, 0..255.
        truth: The picture it should be.
        mask: Pixels that count; default: all. NaN where it is empty.
    """
    squared = np.square((picture.astype(np.float64) - truth) / 255)
    if mask is not None:
        if not mask.any():
            return float("nan")
        squared = squared[mask]
    return float(min(BEST_DB, -10 * np.log10(max(squared.mean(), 1e-10))))
