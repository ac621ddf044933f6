"""Smooth in-painting: extend known colours over unknown pixels by a pyramid (push-pull)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray


def push_pull(image: Float[ndarray, "H W C"], weight: Float[ndarray, "H W"]) -> Float[ndarray, "H W C"]:
    """Fill the pixels of low weight with a smooth continuation of the others.

    Averages known pixels level by level down a pyramid until all is known, then on the way up lets each finer level
    override where it knows better. Linear in pixels.

    Args:
        image: Any values; ignored where weight is 0.
        weight: Trust in [0, 1].

    Returns:
        A picture equal to `image` where weight is 1; zeros if nothing is known.
    """
    height, width = image.shape[:2]
    if image.size == 0:
        return np.float32(image)
    weighted = np.float32(image) * weight[..., None]
    if min(height, width) <= 2 or weight.min() >= 1.0:
        mean = weighted.sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return weighted + (1 - weight[..., None]) * mean
    small = ((width + 1) // 2, (height + 1) // 2)
    total = cv2.resize(np.float32(weight), small, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(weighted, small, interpolation=cv2.INTER_AREA).reshape(*total.shape, -1)
    colour /= np.maximum(total, 1e-6)[..., None]
    coarse = push_pull(colour, np.minimum(2 * total, 1.0))
    smooth = cv2.GaussianBlur(coarse, (3, 3), 0).reshape(coarse.shape)
    grown = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    return weighted + (1 - weight[..., None]) * grown
