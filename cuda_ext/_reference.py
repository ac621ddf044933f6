"""The operators in plain PyTorch: the oracle of the tests and the fallback where nothing was compiled.

Any floating type (float64 included), any device, differentiable by autograd. The rules are those of the parity cases'
mode `exact`: every gradient is the true derivative with draw order, cut-offs and early stop held constant.

Notation: N Gaussians, M of them near one tile, P pixels of the tile, E feature channels, H x W picture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

ALPHA_MIN = 1.0 / 255.0
"""Fainter pairs of Gaussian and pixel are skipped."""
ALPHA_MAX = 0.99
TRANSMITTANCE_MIN = 1e-4
"""The first Gaussian that would leave less light than this ends the pixel and is not blended."""
LOW_PASS_PX2 = 0.3
"""Added to both variances of a projected Gaussian, in square pixels."""
TILE = 16

SSIM_C1, SSIM_C2, SSIM_TAPS, SSIM_SIGMA_PX = 0.01**2, 0.03**2, 11, 1.5


class Projected(NamedTuple):
    """Gaussians on the picture plane, every tensor of length N."""

    means2d: Float[Tensor, "N 2"]
    """Centres in pixels; the centre of pixel (column j, row i) is (j + 0.5, i + 0.5)."""
    covariance: Float[Tensor, "N 3"]
    """xx, xy, yy in square pixels, low-pass included."""
    determinant: Float[Tensor, " N"]
    depth: Float[Tensor, " N"]
    """Camera z; 1 for Gaussians that are not in front of the near plane."""
    in_front: Bool[Tensor, " N"]
    radii: Int[Tensor, " N"]


def rotation_matrices(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Turn unit quaternions (w, x, y, z) into rotation matrices."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def sh_basis(degree: int, direction: Float[Tensor, "N 3"]) -> Float[Tensor, "N K"]:
    """Evaluate the real spherical harmonics up to `degree` (0-3) for unit directions, K = (degree + 1)^2."""
    x, y, z = direction.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree > 0:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        c = 1.0925484305920792
        basis += [c * x * y, -c * y * z, 0.31539156525252005 * (2 * zz - xx - yy), -c * x * z, 0.5 * c * (xx - yy)]
    if degree > 2:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)


def sh_colors(
    sh: Float[Tensor, "N K 3"], degree: int, means: Float[Tensor, "N 3"], viewmat: Float[Tensor, "4 4"]
) -> Float[Tensor, "N 3"]:
    """Return each Gaussian's colour seen from the camera: harmonics + 0.5, clamped below at 0."""
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    direction = torch.nn.functional.normalize(means - eye, dim=-1)
    basis = sh_basis(degree, direction)
    return ((basis[:, :, None] * sh[:, : basis.shape[1]]).sum(1) + 0.5).clamp(min=0)


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    near: float,
) -> Projected:
    """Project Gaussians to the picture plane by the local affine (EWA) approximation; `size` is (width, height) px."""
    width, height = size
    fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    camera = means @ rotation.T + translation
    in_front = camera[:, 2].detach() > near
    z = torch.where(in_front, camera[:, 2], torch.ones_like(camera[:, 2]))
    rx, ry = camera[:, 0] / z, camera[:, 1] / z
    means2d = torch.stack([fx * rx + cx, fy * ry + cy], -1)
    # The Jacobian is taken no farther out than 0.3 half-pictures beside the picture.
    rx = rx.clamp((-cx - 0.15 * width) / fx, (1.15 * width - cx) / fx)
    ry = ry.clamp((-cy - 0.15 * height) / fy, (1.15 * height - cy) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * rx / z, zero, fy / z, -fy * ry / z], -1).reshape(-1, 2, 3)
    unit = quats / quats.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    row0, row1 = (jacobian @ rotation @ rotation_matrices(unit) * scales[:, None, :]).unbind(1)  # [N, 3]
    xx, xy, yy = (row0 * row0).sum(-1), (row0 * row1).sum(-1), (row1 * row1).sum(-1)
    # |row0 x row1|^2 instead of xx yy - xy^2: no cancellation for needles.
    cross = torch.linalg.cross(row0, row1)
    determinant = (cross * cross).sum(-1) + LOW_PASS_PX2 * (xx + yy) + LOW_PASS_PX2**2
    covariance = torch.stack([xx + LOW_PASS_PX2, xy, yy + LOW_PASS_PX2], -1)
    radii = _radii(means2d.detach(), covariance.detach(), determinant.detach(), size)
    return Projected(means2d, covariance, determinant, z, in_front, torch.where(in_front, radii, 0).to(torch.int32))


def _radii(
    means2d: Float[Tensor, "N 2"],
    covariance: Float[Tensor, "N 3"],
    determinant: Float[Tensor, " N"],
    size: tuple[int, int],
) -> Float[Tensor, " N"]:
    """Three standard deviations, rounded up; 0 where no 16 x 16 tile is met (specs/gaussian_head.md j.2)."""
    middle = 0.5 * (covariance[:, 0] + covariance[:, 2])
    largest = middle + (middle * middle - determinant).clamp(min=0.1).sqrt()
    radius = (3 * largest.sqrt()).ceil()
    seen = torch.ones_like(radius, dtype=torch.bool)
    for axis, pixels in enumerate(size):
        tiles = (pixels + TILE - 1) // TILE
        centre = means2d[:, axis] - 0.5
        first = ((centre - radius) / TILE).trunc().clamp(0, tiles)
        last = ((centre + radius + TILE - 1) / TILE).trunc().clamp(0, tiles)
        seen &= last > first
    return torch.where(seen, radius, torch.zeros_like(radius))


class _AbsoluteSum(torch.autograd.Function):
    """Repeats a column for every pixel; its gradient is the sum of the pixels' absolute gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, column: Float[Tensor, "M 1"], pixels: int) -> Float[Tensor, "M P"]:
        return column.expand(-1, pixels)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Float[Tensor, "M P"]) -> tuple[Float[Tensor, "M 1"], None]:
        return grad.abs().sum(1, keepdim=True), None


def _blend_tile(
    projected: Projected,
    opacities: Float[Tensor, " M"],
    channels: Float[Tensor, "M C"],
    absolute: Float[Tensor, "M 2"] | None,
    x: Float[Tensor, " P"],
    y: Float[Tensor, " P"],
) -> tuple[Float[Tensor, "C P"], Float[Tensor, " P"], Int[Tensor, " P"]]:
    """Blend M Gaussians, front to back, at P pixel centres: summed channels, light left over, number blended."""
    dx, dy = x - projected.means2d[:, :1], y - projected.means2d[:, 1:]  # [M, P]
    if absolute is not None:
        dx, dy = dx + _AbsoluteSum.apply(absolute[:, :1], len(x)), dy + _AbsoluteSum.apply(absolute[:, 1:], len(x))
    xx, xy, yy = (projected.covariance[:, i : i + 1] for i in range(3))
    power = -0.5 * ((yy * dx - xy * dy).square() / (yy * projected.determinant[:, None]) + dy.square() / yy)
    alpha = (opacities[:, None] * power.exp()).clamp(max=ALPHA_MAX)
    visible = alpha.detach() >= ALPHA_MIN
    left = torch.where(visible, 1 - alpha, 1.0).detach().cumprod(0)
    take = visible & (left >= TRANSMITTANCE_MIN)
    alpha = torch.where(take, alpha, 0.0)
    after = (1 - alpha).cumprod(0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return channels.T @ (alpha * before), after[-1], take.sum(0).to(torch.int32)


def rasterize(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, "N 3"],
    features: Float[Tensor, "N E"],
    means2d: Float[Tensor, "N D"] | None,
    background: Float[Tensor, " 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    near: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Splat Gaussians, tile by tile; see `cuda_ext.rasterize` for the meaning of the arguments.

    Returns:
        color [3, H, W], alpha [1, H, W], depth [1, H, W], features [E, H, W], radii [N], n_contrib [H, W].
    """
    width, height = size
    projected = project(means, quats, scales, viewmat, K, size, near)
    absolute = None
    if means2d is not None:
        half = means.new_tensor([0.5 * width, 0.5 * height])
        projected = projected._replace(means2d=projected.means2d + means2d[:, :2] * half)
        absolute = means2d[:, 2:] * half if means2d.shape[1] == 4 else None
    channels = torch.cat([colors, projected.depth[:, None], features], 1)  # [N, 4 + E]
    keep = (projected.in_front & (opacities.detach() >= ALPHA_MIN)).nonzero()[:, 0]
    order = keep[torch.sort(projected.depth.detach()[keep], stable=True).indices]
    # Half extents of the ellipse on which alpha falls to 1/255, with a little slack.
    reach = 2 * (opacities.detach()[order] * 255).clamp(min=1).log() + 1e-3
    extent = (reach[:, None] * projected.covariance.detach()[order][:, [0, 2]]).sqrt() + 0.01
    low, high = projected.means2d.detach()[order] - extent, projected.means2d.detach()[order] + extent
    rows = []
    for top in range(0, height, TILE):
        bottom = min(top + TILE, height)
        row = order[(low[:, 1] < bottom) & (high[:, 1] > top)]
        row_low, row_high = (v[(low[:, 1] < bottom) & (high[:, 1] > top), 0] for v in (low, high))
        tiles = []
        for left in range(0, width, TILE):
            right = min(left + TILE, width)
            index = row[(row_low < right) & (row_high > left)]
            shape = (bottom - top, right - left)
            tiles.append(_tile(projected, opacities, channels, absolute, index, (left, top), shape))
        rows.append([torch.cat(parts, -1) for parts in zip(*tiles, strict=True)])
    image, transmittance, count = (torch.cat(parts, -2) for parts in zip(*rows, strict=True))
    color = image[:3] + transmittance * background[:, None, None]
    return color, 1 - transmittance, image[3:4], image[4:], projected.radii, count


def _tile(
    projected: Projected,
    opacities: Float[Tensor, " N"],
    channels: Float[Tensor, "N C"],
    absolute: Float[Tensor, "N 2"] | None,
    index: Int[Tensor, " M"],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> tuple[Float[Tensor, "C h w"], Float[Tensor, "1 h w"], Int[Tensor, "h w"]]:
    """Draw the Gaussians `index` (in depth order) on the pixels of one tile whose corner is (left, top)."""
    if len(index) == 0:
        image = channels.new_zeros(channels.shape[1], *shape)
        return image, channels.new_ones(1, *shape), torch.zeros(shape, dtype=torch.int32, device=channels.device)
    x = torch.arange(shape[1], dtype=channels.dtype, device=channels.device) + (corner[0] + 0.5)
    y = torch.arange(shape[0], dtype=channels.dtype, device=channels.device) + (corner[1] + 0.5)
    near_tile = Projected(*(value[index] for value in projected))
    absolute = None if absolute is None else absolute[index]
    pixels = x.repeat(shape[0]), y.repeat_interleave(shape[1])
    image, light, count = _blend_tile(near_tile, opacities[index], channels[index], absolute, *pixels)
    return image.reshape(-1, *shape), light.reshape(1, *shape), count.reshape(shape)


def gaussian_window(dtype: torch.dtype, device: torch.device) -> Float[Tensor, " 11"]:
    """Return the 11 taps of a Gaussian of 1.5 px, summing to 1."""
    offset = torch.arange(SSIM_TAPS, dtype=dtype, device=device) - SSIM_TAPS // 2
    window = torch.exp(-0.5 * (offset / SSIM_SIGMA_PX).square())
    return window / window.sum()


def blur(image: Float[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
    """Blur by the SSIM window, separably, with zeros outside the picture."""
    window = gaussian_window(image.dtype, image.device)
    half = SSIM_TAPS // 2
    across = torch.nn.functional.conv2d(image[:, None], window.reshape(1, 1, 1, -1), padding=(0, half))
    return torch.nn.functional.conv2d(across, window.reshape(1, 1, -1, 1), padding=(half, 0))[:, 0]


def l1_ssim(
    prediction: Float[Tensor, "C H W"], target: Float[Tensor, "C H W"], mask: Float[Tensor, "1 H W"] | None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean absolute difference and the mean structural similarity; see `cuda_ext.l1_ssim`."""
    channels = prediction.shape[0]
    stacked = torch.cat([prediction, target, prediction * prediction, target * target, prediction * target])
    mu_x, mu_y, xx, yy, xy = blur(stacked).split(channels)
    variances = xx - mu_x * mu_x + yy - mu_y * mu_y + SSIM_C2
    similarity = (2 * mu_x * mu_y + SSIM_C1) * (2 * (xy - mu_x * mu_y) + SSIM_C2)
    similarity = similarity / ((mu_x * mu_x + mu_y * mu_y + SSIM_C1) * variances)
    difference = (prediction - target).abs()
    if mask is None:
        return difference.mean(), similarity.mean()
    total = channels * mask.sum().clamp(min=math.ulp(1.0))
    return (difference * mask).sum() / total, (similarity * mask).sum() / total
