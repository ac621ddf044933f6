"""A stand-in for gsplat 1.5: `rasterization` with its documented arguments and results, one camera, on our operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cuda_ext import rasterize

devices = ("cpu",)  # the real one has no such list: it runs on CUDA


class _Project(torch.autograd.Function):
    """Projected centres, whose gradient a caller may look at; the operator itself hands it on to the means."""

    @staticmethod
    def forward(ctx: FunctionCtx, means: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:
        ctx.count = len(means)
        camera = means @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixels = camera @ K.T
        return (pixels[:, :2] / pixels[:, 2:])[None]

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.new_zeros(ctx.count, 3), None, None


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, near_plane: float = 0.01, far_plane: float = 1e10, radius_clip: float = 0.0,
    eps2d: float = 0.3, sh_degree: int | None = None, packed: bool = True, tile_size: int = 16,
    backgrounds: Tensor | None = None, render_mode: str = "RGB", sparse_grad: bool = False, absgrad: bool = False,
    rasterize_mode: str = "classic",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """Return colors [1, H, W, D], alphas [1, H, W, 1], and means2d [1, N, 2] px and radii [1, N, 2] among others."""
    assert not packed
    assert sh_degree is None
    assert (far_plane, radius_clip, eps2d, tile_size, render_mode) == (1e10, 0.0, 0.3, 16, "RGB")
    assert backgrounds is None
    assert (sparse_grad, absgrad) == (False, False)
    assert rasterize_mode == "classic"
    assert means.shape[:1] == quats.shape[:1] == scales.shape[:1] == opacities.shape == colors.shape[:1]
    centers = _Project.apply(means, viewmats[0], Ks[0])
    half = means.new_tensor([width / 2, height / 2])
    view = rasterize(
        means, quats, scales, opacities, viewmats[0], Ks[0], width, height, colors=colors[:, :3],
        features=colors[:, 3:], means2d=(centers - centers.detach())[0] / half, near=near_plane,
    )  # fmt: skip
    pictures = torch.cat([view.color, view.features]).permute(1, 2, 0)[None]
    radii = torch.stack([view.radii, view.radii // 2], -1)[None]
    return pictures, view.alpha.permute(1, 2, 0)[None], {"means2d": centers, "radii": radii}
