"""Smooth random fields for textures."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray


def noise_image(rng: np.random.Generator, size: int, blur_x: float, blur_y: float | None = None) -> ndarray:
    """Return [size, size] float32 noise of mean 0 and deviation 1 that tiles, blurred by the given deviations (px)."""
    white = rng.standard_normal((size, size)).astype(np.float32)
    pad = min(size, int(4 * max(blur_x, blur_y or blur_x)) + 1)
    blurred = cv2.GaussianBlur(np.pad(white, pad, mode="wrap"), (0, 0), blur_x, sigmaY=blur_y or blur_x)
    blurred = blurred[pad:-pad, pad:-pad]
    return (blurred - blurred.mean()) / blurred.std()


def octaves(rng: np.random.Generator, size: int, coarsest: float, count: int = 4) -> Float[ndarray, "size size"]:
    """Return noise with features from `coarsest` px down, each octave half as strong."""
    total = sum(0.5**k * noise_image(rng, size, max(coarsest / 2**k, 0.4)) for k in range(count))
    return total / total.std()


def sample(image: Float[ndarray, "h w"], x: ndarray, y: ndarray, scale: float) -> ndarray:
    """Look a tiling field up at (x, y) times `scale` px."""
    size = image.shape[0]
    u, v = np.mod(x * scale, size).astype(np.float32), np.mod(y * scale, size).astype(np.float32)
    return cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
