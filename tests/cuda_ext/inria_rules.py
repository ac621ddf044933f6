"""Cameras and pictures by the rules of diff-gaussian-rasterization (specs/gaussian_head.md j.2), by brute force."""

from __future__ import annotations

import torch
from torch import Tensor

from cuda_ext.diff_gaussian_rasterization import GaussianRasterizationSettings


def their_settings(scene: dict[str, Tensor], **changes: object) -> GaussianRasterizationSettings:
    """The camera of a scene (arguments of `rasterize`), as callers of the original write it."""
    K, viewmat, width, height = scene["K"], scene["viewmat"], scene["width"], scene["height"]
    tanfovx, tanfovy = width / (2 * K[0, 0].item()), height / (2 * K[1, 1].item())
    near, far = 0.01, 100.0
    projection = torch.zeros(4, 4, dtype=viewmat.dtype)
    projection[0, 0], projection[1, 1] = 1 / tanfovx, 1 / tanfovy
    projection[0, 2], projection[1, 2] = 2 * K[0, 2] / width - 1, 2 * K[1, 2] / height - 1
    projection[2, 2], projection[2, 3], projection[3, 2] = far / (far - near), -far * near / (far - near), 1
    settings = GaussianRasterizationSettings(
        image_height=height,
        image_width=width,
        tanfovx=tanfovx,
        tanfovy=tanfovy,
        bg=scene["background"],
        scale_modifier=1.0,
        viewmatrix=viewmat.T,
        projmatrix=viewmat.T @ projection.T,
        sh_degree=3,
        campos=torch.linalg.inv(viewmat)[:3, 3],
        prefiltered=False,
        debug=False,
    )
    return settings._replace(**changes)


def rotation(quat: Tensor) -> Tensor:
    """The matrix of one quaternion (w, x, y, z)."""
    w, x, y, z = (quat / quat.norm()).tolist()
    return quat.new_tensor([
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ])  # fmt: skip


def brute_force(
    settings: GaussianRasterizationSettings, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
    colors: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Color [3, H, W], depth and alpha [H, W] by their projection: row vectors, NDC, pixel centres at integers.

    Every Gaussian is tried at every pixel (no tiles), and must not be so far out that the Jacobian is limited.
    """
    width, height = settings.image_width, settings.image_height
    focal = width / (2 * settings.tanfovx), height / (2 * settings.tanfovy)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    color, depth = means.new_zeros(3, height, width), means.new_zeros(height, width)
    left, done = means.new_ones(height, width), torch.zeros(height, width, dtype=torch.bool)
    camera = means @ settings.viewmatrix[:3, :3] + settings.viewmatrix[3, :3]
    for i in camera[:, 2].argsort().tolist():
        x, y, z = camera[i].tolist()
        if z <= 0.2:
            continue
        assert abs(x / z) < 1.3 * settings.tanfovx
        assert abs(y / z) < 1.3 * settings.tanfovy
        clip = torch.cat([means[i], means.new_ones(1)]) @ settings.projmatrix
        ndc = clip[:2] / (clip[3] + 1e-7)
        u, v = ((ndc[0] + 1) * width - 1) / 2, ((ndc[1] + 1) * height - 1) / 2
        jacobian = means.new_tensor([
            [focal[0] / z, 0, -focal[0] * x / z**2], [0, focal[1] / z, -focal[1] * y / z**2],
        ])  # fmt: skip
        axes = jacobian @ settings.viewmatrix[:3, :3].T @ rotation(quats[i]) * scales[i] * settings.scale_modifier
        conic = torch.linalg.inv(axes @ axes.T + 0.3 * torch.eye(2, dtype=means.dtype))
        d = torch.stack([u - columns, v - rows])
        power = -0.5 * (d * torch.einsum("ij,jhw->ihw", conic, d)).sum(0)
        alpha = (opacities[i] * power.exp()).clamp(max=0.99)
        take = (alpha >= 1 / 255) & ~done
        done |= take & (left * (1 - alpha) < 1e-4)
        weight = torch.where(take & ~done, alpha * left, 0.0)
        color, depth = color + weight * colors[i][:, None, None], depth + weight * z
        left = left - weight
    background = settings.bg if settings.bg.ndim == 3 else settings.bg[:, None, None]
    return color + left * background, depth, 1 - left
