"""Structural similarity (Wang et al. 2004) in the three forms of the field (specs/metrics.md section 2.1).

x is the picture, y the truth; m and v are a window's mean and variance, c the covariance:
SSIM = (2 mx my + C1) (2 c + C2) / ((mx^2 + my^2 + C1) (vx + vy + C2)), C1 = 0.01^2, C2 = 0.03^2 for values in [0, 1].
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from cuda_ext import l1_ssim
from gaussian_head.evaluation.metric import Entry, FrameMetric, Pair, Region

RADIUS = 5
"""Of the Gaussian window, in px: 11 x 11."""
UNIFORM = 7
"""Side of scikit-image's window, in px."""


class Ssim(FrameMetric):
    """The splatting papers' SSIM: Gaussian window, zeros outside the picture."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "ssim", "SSIM", "", "higher", frozenset({"truth"}),
            "3D Gaussian splatting's loss_utils.ssim; specs/metrics.md section 2.1", "{:.4f}",
        ),
    )  # fmt: skip
    regions: ClassVar[tuple[str, ...]] = ("full", "head", "mouth")

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the mean of the similarity map over the picture and over its regions' pixels."""
        picture, truth = pair.picture.unit[0], pair.truth.unit[0]
        values = {("ssim", name): similarity(picture, truth, region.mask) for name, region in pair.regions.items()}
        return {**values, ("ssim", "full"): similarity(picture, truth)}


class SsimVico(FrameMetric):
    """The ViCo challenge's SSIM: of pictures pooled to about 256 px, without the border."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "ssim_vico", "SSIM (ViCo)", "", "higher", frozenset({"truth"}),
            "ViCo challenge: piq 0.8.0 ssim; specs/metrics.md section 2.1", "{:.4f}",
        ),
    )  # fmt: skip

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the similarity of the whole picture."""
        return {("ssim_vico", "full"): similarity_vico(pair.picture.unit[0], pair.truth.unit[0])}

    def why_excluded(self, region: str) -> str:
        """Say why a frame may have no value."""
        return f"a side of the picture is under {2 * RADIUS + 1} px"


class SsimSkimage(FrameMetric):
    """EAT's SSIM: scikit-image's defaults."""

    entries: ClassVar[tuple[Entry, ...]] = (
        Entry(
            "ssim_skimage", "SSIM (EAT)", "", "higher", frozenset({"truth"}),
            "EAT: skimage structural_similarity(channel_axis=-1); specs/metrics.md section 2.1", "{:.4f}",
        ),
    )  # fmt: skip

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Return the similarity of the whole picture."""
        return {("ssim_skimage", "full"): measure_ssim_skimage(pair.picture.rgb, pair.truth.rgb)}

    def why_excluded(self, region: str) -> str:
        """Say why a frame may have no value."""
        return f"a side of the picture is under {UNIFORM} px"


def measure_ssim(
    picture: UInt8[np.ndarray, "H W 3"],
    truth: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Return the mean over pixels and channels; 1 for equal pictures. See `similarity`."""
    return similarity(_unit(picture), _unit(truth), mask)


def similarity(
    picture: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Return the splatting papers' SSIM: 11 x 11 Gaussian window of 1.5 px, zeros outside, population variances.

    Args:
        picture: RGB in [0, 1].
        truth: The picture it should be.
        mask: Pixels whose similarity is averaged (windows reach beyond it); default: all. NaN where it is empty.

    Raises:
        ValueError: The pictures differ in size.
    """
    if mask is None:
        return float(l1_ssim(picture, truth)[1])
    if not mask.any():
        return float("nan")
    # Only windows of the mask's pixels matter, so their surroundings suffice.
    around = tuple(slice(max(side.start - RADIUS, 0), side.stop + RADIUS) for side in Region(mask).box)
    weights = torch.from_numpy(np.ascontiguousarray(mask[around]))[None].to(picture)
    return float(l1_ssim(picture[:, *around], truth[:, *around], weights)[1])


def similarity_vico(picture: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"]) -> float:
    """Return piq's SSIM: average pooling by `pooling_factor`, then only windows that lie inside the picture.

    Args:
        picture: RGB in [0, 1].
        truth: The picture it should be.

    Returns:
        In (-1, 1], 1 for equal pictures; NaN where the pooled picture is smaller than the window.

    Raises:
        ValueError: The pictures differ in size.
    """
    factor = pooling_factor(*picture.shape[1:])
    picture, truth = F.avg_pool2d(picture, factor), F.avg_pool2d(truth, factor)
    inside = torch.zeros_like(picture[:1])
    inside[:, RADIUS:-RADIUS, RADIUS:-RADIUS] = 1
    if not inside.any():
        return float("nan")
    return float(l1_ssim(picture, truth, inside)[1])


def pooling_factor(height: int, width: int) -> int:
    """Return by how much piq shrinks a picture before SSIM: its shorter side over 256, rounded, halves to even."""
    return max(1, round(min(height, width) / 256))


def measure_ssim_skimage(picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return scikit-image's SSIM of RGB pictures: 7 x 7 uniform window, sample variances, no border.

    The window sums are exact integers (at most 2 * 49^2 * 255^2, within 32 bits), so it equals the library's to
    rounding, in a fraction of its time.

    Args:
        picture: RGB, 0..255.
        truth: The picture it should be.

    Returns:
        In (-1, 1], 1 for equal pictures; NaN for a picture smaller than the window.

    Raises:
        ValueError: The pictures differ in size.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"SSIM needs two pictures of one size, got {picture.shape} and {truth.shape}; resize one.")
    if min(picture.shape[:2]) < UNIFORM:
        return float("nan")
    x, y = picture.astype(np.float32), truth.astype(np.float32)
    sum_x, sum_y, sum_xx, sum_yy, sum_xy = (_window_sums(values) for values in (x, y, x * x, y * y, x * y))
    count = UNIFORM * UNIFORM
    squares, product = sum_x * sum_x + sum_y * sum_y, sum_x * sum_y
    covariance, variances = 2 * (count * sum_xy - product), count * (sum_xx + sum_yy) - squares
    c1, c2 = np.float32((0.01 * 255 * count) ** 2), np.float32((0.03 * 255) ** 2 * count * (count - 1))
    above = (2 * product.astype(np.float32) + c1) * (covariance.astype(np.float32) + c2)
    below = (squares.astype(np.float32) + c1) * (variances.astype(np.float32) + c2)
    return float((above / below).mean(dtype=np.float64))


def _window_sums(values: Float[np.ndarray, "H W 3"]) -> Int[np.ndarray, "h w 3"]:
    """Sum integers up to 255^2 over all windows inside the picture; exact, as sums stay below 2^24."""
    half = UNIFORM // 2
    sums = cv2.boxFilter(values, cv2.CV_32F, (UNIFORM, UNIFORM), normalize=False, borderType=cv2.BORDER_REFLECT)
    return sums[half:-half, half:-half].astype(np.int32)


def _unit(image: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
