"""The scene that the benchmarks draw: a head of Gaussians whose work does not depend on the resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DISTANCE_M = 0.9
FIELD_OF_VIEW_DEG = 20.0
HEAD_M = (0.075, 0.105, 0.09)
"""Half axes of the head's ellipsoid."""


def make_scene(gaussians: int, px: int, device: str = "cpu", seed: int = 0) -> dict[str, Tensor | int]:
    """Return arguments of `rasterize`: a noisy shell of a head with a nose (80 %), shoulders (10 %) and a wall (10 %).

    Each axis of a Gaussian is log-uniform in 0.5-3 px on the picture, the wall's in 1.5-4; opacity uniform in
    0.05-0.99; harmonics of degree 3; a square picture (specs/rasterizer.md 1).
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    few = gaussians // 10
    direction = torch.nn.functional.normalize(torch.randn(gaussians - 2 * few, 3, generator=generator), dim=1)
    to_nose = direction - torch.tensor([0.0, -0.1, 0.99])
    length = 1 + 0.02 * torch.randn(len(direction), 1, generator=generator)
    length += 0.25 * torch.exp(-to_nose.square().sum(1, keepdim=True) / 0.06)
    head = direction * torch.tensor(HEAD_M) * length
    shoulders = torch.tensor([0.15, 0.024, 0.05]) * uniform(-1, 1, few, 3) - torch.tensor([0, 0.134, 0])
    wall = torch.tensor([0.19, 0.19, 0.005]) * uniform(-1, 1, few, 3) - torch.tensor([0, 0, 0.205])
    focal = 0.5 * px / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
    axes_px = torch.exp(uniform(math.log(0.5), math.log(3.0), gaussians, 3))
    axes_px[gaussians - few :] = torch.exp(uniform(math.log(1.5), math.log(4.0), few, 3))
    means = torch.cat([head, shoulders, wall])
    viewmat = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    viewmat[2, 3] = DISTANCE_M
    sh = 0.1 * torch.randn(gaussians, 16, 3, generator=generator)
    sh[:, 0] = uniform(-1.5, 1.5, gaussians, 3)
    scene = {
        "means": means,
        "quats": torch.randn(gaussians, 4, generator=generator),
        "scales": axes_px * (DISTANCE_M - means[:, 2:]) / focal,
        "opacities": uniform(0.05, 0.99, gaussians),
        "sh": sh,
        "background": torch.full((3,), 0.5),
        "viewmat": viewmat,
        "K": torch.tensor([[focal, 0, px / 2], [0, focal, px / 2], [0, 0, 1]]),
    }
    return {name: value.to(device) for name, value in scene.items()} | {"width": px, "height": px}
