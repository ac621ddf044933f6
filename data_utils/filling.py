"""In-painting: extend known colours over unknown pixels, by a pyramid (push-pull) or from the nearest."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float
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


def nearest_fill(
    image: Float[ndarray, "H W C"], known: Bool[ndarray, "H W"], blur_px: float
) -> Float[ndarray, "H W C"]:
    """Fill unknown pixels with their nearest known one, blurred: unlike `push_pull`, far colours do not mix in.

    Args:
        image: Any values; ignored where not known.
        known: Where they are to be kept.
        blur_px: Standard deviation of the blur, inside the filled part alone.

    Returns:
        A picture equal to `image` where known; `image` itself if nothing is known.
    """
    if known.all() or not known.any():
        return np.float32(image)
    _, labels = cv2.distanceTransformWithLabels(np.uint8(~known), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    sources = np.zeros((labels.max() + 1, image.shape[2]), np.float32)
    sources[labels[known]] = image[known]
    filled = sources[labels]
    smooth = cv2.GaussianBlur(filled, (0, 0), blur_px).reshape(filled.shape)
    return np.where(known[..., None], np.float32(image), smooth)
