"""Is there a seam where the head meets the neck? Ours; no paper's definition."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from gaussian_head.evaluation.metric import Entry, FrameMetric, Pair, Region
from gaussian_head.geometry.landmarks import JAW_LINE, face_height

HALF_WIDTH = 0.05
"""Of the band, to each side of the jaw line, in heights of the face."""
FLOOR = 1e-5
"""Added to both energies, of grey values in 0..1 per px: an edge of about a level, so that a flat truth has a ratio."""


class NeckSeam(FrameMetric):
    """Gradient energy of the picture in a band along the true jaw line, in decibels of the true picture's.

    Positive: there are edges that the truth does not have, as a seam is. Negative: the truth's own edges are blurred.
    Frames whose true picture shows no face, or no part of the band, are left out and counted.
    """

    entries: ClassVar = (
        Entry(
            "neck_seam", "neck seam", "dB", "zero", frozenset({"truth", "landmarks"}),
            "ours: 10 log10 of the ratio, picture to truth, of the mean squared gradient of grey within "
            f"{HALF_WIDTH:.0%} of the face's height of the true jaw line", "{:+.2f}",
        ),
    )  # fmt: skip

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Compare one frame."""
        mesh = pair.truth.mesh
        if mesh is None or not np.isfinite(mesh).all():
            return {}
        band = jaw_band(mesh, *pair.truth.gray.shape)
        if not band.any():
            return {}
        return {("neck_seam", "full"): seam_energy(pair.picture.gray, pair.truth.gray, band)}

    def why_excluded(self, region: str) -> str:
        """Say that there is no jaw line."""
        return "no jaw line found in the true picture"


def jaw_band(mesh: Float[np.ndarray, "478 3"], height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Mark the pixels of a `height` x `width` picture near the jaw line, from ear to ear."""
    line = np.rint(mesh[JAW_LINE, :2] - 0.5).astype(np.int32)  # OpenCV's pixel centres are at integers
    thickness = max(1, round(2 * HALF_WIDTH * float(face_height(mesh[:, :2]))))
    return cv2.polylines(np.zeros((height, width), np.uint8), [line], False, 1, thickness) > 0


def seam_energy(
    picture: UInt8[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"], band: Bool[np.ndarray, "H W"]
) -> float:
    """Return 10 log10 of the ratio of both grey pictures' gradient energies in the band, in dB."""
    box = Region(band).box
    energies = [_gradient_energy(gray[box], band[box]) + FLOOR for gray in (picture, truth)]
    return float(10 * np.log10(energies[0] / energies[1]))


def _gradient_energy(gray: UInt8[np.ndarray, "H W"], band: Bool[np.ndarray, "H W"]) -> float:
    unit = gray.astype(np.float32) / 255
    across, down = (cv2.Sobel(unit, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return float((across**2 + down**2)[band].mean())
