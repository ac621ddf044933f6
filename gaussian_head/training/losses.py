"""What the stages minimize; every term is a mean, so that weights hold for any resolution and Gaussian count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cuda_ext import l1_ssim
from gaussian_head.media.image import grow

SSIM_WEIGHT = 0.2


def photometric(
    color: Float[Tensor, "3 H W"], target: Float[Tensor, "3 H W"], mask: Float[Tensor, "1 H W"] | None = None
) -> Tensor:
    """L1 + 0.2 (1 - SSIM), over the picture or weighted by a mask (specs/gaussian_head.md f.1)."""
    l1, ssim = l1_ssim(color, target, mask)
    return l1 + SSIM_WEIGHT * (1 - ssim)


def masked_mean(value: Float[Tensor, "*C H W"], mask: Float[Tensor, "1 H W"]) -> Tensor:
    """Mean of a map under a mask; 0, with zero gradient, for an empty mask."""
    return (value * mask).sum() / mask.sum().clamp_min(1)


def coverage(alpha: Float[Tensor, "1 H W"], opaque: Float[Tensor, "1 H W"], empty: Float[Tensor, "1 H W"]) -> Tensor:
    """Ask for full coverage in one region and for none in another."""
    return masked_mean(1 - alpha, opaque) + masked_mean(alpha, empty)


def erode(mask: UInt8[Tensor, "1 H W"], radius: int) -> UInt8[Tensor, "1 H W"]:
    """Shrink a coverage (0..255) by `radius` px."""
    return dilate(mask, -radius)


def dilate(mask: UInt8[Tensor, "1 H W"], radius: int) -> UInt8[Tensor, "1 H W"]:
    """Grow a coverage (0..255) by `radius` px."""
    return torch.from_numpy(grow(mask[0].cpu().numpy(), radius))[None].to(mask.device)


def difference_in(
    color: Float[Tensor, "3 H W"], target: Float[Tensor, "3 H W"], boxes: Sequence[tuple[slice, slice]]
) -> Tensor:
    """Return the mean absolute difference in boxes (rows, columns), each counting alike; 0 where all are outside."""
    parts = [(color[:, rows, columns] - target[:, rows, columns]).abs() for rows, columns in boxes]
    parts = [part.mean() for part in parts if part.numel()]
    return torch.stack(parts).mean() if parts else color.new_zeros(())
