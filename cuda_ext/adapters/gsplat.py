"""`gsplat.rasterization` (nerfstudio; version 1) as an adapter's `draw`.

It differs from `cuda_ext.rasterize` in where it caps alpha (0.99 or 0.999, by version) and in its radii, which are
those of the ellipse where alpha falls to 1/255, per axis; the larger one is returned.
"""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cuda_ext.adapters.scene import Scene


def draw(module: ModuleType, scene: Scene) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "1 H W"], Int[Tensor, " N"]]:
    """Blend the channels over 0; return them, alpha, and radii."""
    means, centers = scene.means, {}
    if scene.means2d is not None:
        means = _PassCentersOn.apply(means, scene.means2d, centers)
    pictures, alphas, told = module.rasterization(
        means=means,
        quats=scene.quats,
        scales=scene.scales,
        opacities=scene.opacities,
        colors=scene.channels,
        viewmats=scene.viewmat[None],
        Ks=scene.K[None],
        width=scene.width,
        height=scene.height,
        near_plane=scene.near,
        packed=False,
    )
    if told["means2d"].requires_grad:
        half = scene.means.new_tensor([scene.width / 2, scene.height / 2])
        told["means2d"].register_hook(lambda grad: centers.update(grad=grad.reshape(-1, 2) * half))
    radii = told["radii"][0]  # [N, 2]; [N] before version 1.5
    return pictures[0].permute(2, 0, 1), alphas[0].permute(2, 0, 1), radii.amax(-1) if radii.ndim == 2 else radii


class _PassCentersOn(torch.autograd.Function):
    """Gives `means2d` the gradient that a hook has seen at the projected centres, on the way back to the means."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, means: Float[Tensor, "N 3"], means2d: Float[Tensor, "N 2"], centers: dict[str, Tensor]
    ) -> Float[Tensor, "N 3"]:
        ctx.centers, ctx.shape = centers, means2d.shape
        return means.view_as(means)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Float[Tensor, "N 3"]) -> tuple[Tensor, Tensor, None]:
        return grad, ctx.centers.get("grad", grad.new_zeros(ctx.shape)), None
