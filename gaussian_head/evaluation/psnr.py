"""Peak signal-to-noise ratio, over a picture or a part of it (specs/metrics.md section 2.2)."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from gaussian_head.evaluation.metric import Entry, FrameMetric, Pair

BEST_DB = 100.0
"""Reported for equal pictures, where the formula has infinity."""
VICO_EPSILON = 1e-8
"""Added to the mean squared difference by piq, so that equal pictures have 80 dB."""


class Psnr(FrameMetric):
    """The splatting papers' PSNR: the three channels together, frame by frame."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "psnr", "PSNR", "dB", "higher", frozenset({"truth"}),
            "TalkingGaussian and ER-NeRF, with 100 dB for infinity; specs/metrics.md section 2.2", "{:.2f}",
        ),
    )  # fmt: skip
    regions: ClassVar[tuple[str, ...]] = ("full", "head", "mouth")

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the PSNR of the picture and of its regions' pixels; None for an empty region."""
        picture, truth = pair.picture.rgb, pair.truth.rgb
        values = {("psnr", name): measure_psnr(picture, truth, region.mask) for name, region in pair.regions.items()}
        return {**values, ("psnr", "full"): measure_psnr(picture, truth)}


class PsnrVico(FrameMetric):
    """The ViCo challenge's PSNR."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "psnr_vico", "PSNR (ViCo)", "dB", "higher", frozenset({"truth"}),
            "ViCo challenge: piq 0.8.0 psnr, 80 dB at most; specs/metrics.md section 2.2", "{:.2f}",
        ),
    )  # fmt: skip

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the PSNR of the whole picture."""
        return {("psnr_vico", "full"): measure_psnr_vico(pair.picture.rgb, pair.truth.rgb)}


def measure_psnr(
    picture: UInt8[np.ndarray, "H W 3"],
    truth: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Return -10 log10 of the mean squared difference (of values in [0, 1]), in dB, at most 100.

    Args:
        picture: RGB, 0..255.
        truth: The picture it should be.
        mask: Pixels that count; default: all. NaN where it is empty.

    Raises:
        ValueError: The pictures differ in size.
    """
    _check_sizes(picture, truth)
    if mask is not None and not mask.any():
        return float("nan")
    squared = _mean_squared(picture, truth, None if mask is None else mask.astype(np.uint8))
    return float(min(BEST_DB, -10 * np.log10(max(squared, 1e-10))))


def measure_psnr_vico(picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return -10 log10(mean squared difference + 1e-8), in dB: 80 for equal pictures.

    Args:
        picture: RGB, 0..255.
        truth: The picture it should be.

    Raises:
        ValueError: The pictures differ in size.
    """
    _check_sizes(picture, truth)
    return float(-10 * np.log10(_mean_squared(picture, truth) + VICO_EPSILON))


def _mean_squared(
    picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W"] | None = None
) -> float:
    count = picture[..., 0].size if mask is None else np.count_nonzero(mask)
    return cv2.norm(picture, truth, cv2.NORM_L2SQR, mask) / (3 * count * 255**2)


def _check_sizes(picture: np.ndarray, truth: np.ndarray) -> None:
    if picture.shape != truth.shape:
        raise ValueError(f"PSNR needs two pictures of one size, got {picture.shape} and {truth.shape}; resize one.")
