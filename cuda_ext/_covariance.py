"""Gaussians given by covariances, for an operator that takes rotations and scales; gradients included.

An eigen-decomposition would do for the picture, but its derivative does not exist where two axes are equally long, as
in every round Gaussian. What one camera sees of a covariance S is less than all of it: its projection B = E^T S E along
the viewing ray, where E [3, 2] spans the plane across. So S is replaced by another covariance with the same B, whose
axes v_i are constants chosen so that the three squared lengths that give B, sum_i l_i (E^T v_i) (E^T v_i)^T = B,
exist, are not negative, and are differentiable functions of B always. In the eigenbasis of B (across, n the ray),
with r the ratio of its eigenvalues L >= r L:

    v_2, v_3 = (+-sqrt(1/2), -sqrt(r/6), sqrt(1/2 - r/6)),   v_1 = v_2 x v_3,   l_2 = l_3 = L,   l_1 = r L / (3/2 - r/2)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

THINNEST_PX = 1e-3
"""Covariances that look thinner than this are taken to be this thick: 3e-6 of what the low-pass adds."""


def stand_ins(
    covariances: Float[Tensor, "N 6"],
    means: Float[Tensor, "N 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    near: float,
) -> tuple[Float[Tensor, "N 4"], Float[Tensor, "N 3"]]:
    """Find Gaussians that look to one camera like those of given covariances, and vary as they do to first order.

    Args:
        covariances: xx, xy, xz, yy, yz, zz in the world; an off-diagonal's gradient is that of both its places.
        means: Centres in the world.
        viewmat: World to camera, rigid.
        K: Intrinsics in px.
        size: (width, height) of the picture, px.
        near: As for `rasterize`.

    Returns:
        Unit quaternions (w, x, y, z), without gradient, and scales, differentiable by covariances and means.
    """
    covariance = covariances.double()[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    rotation, translation = viewmat.double()[:3, :3], viewmat.double()[:3, 3]
    camera = means.double() @ rotation.T + translation
    z = torch.where(camera[:, 2].detach() > near, camera[:, 2], torch.ones_like(camera[:, 2]))
    x, y = (_clamped(camera[:, i] / z, float(K[i, i]), float(K[i, 2]), size[i]) for i in (0, 1))
    thinnest = (THINNEST_PX / max(float(K[0, 0]), float(K[1, 1])) * z.detach()).square()
    axes, lengths = _frames(covariance.detach(), x.detach(), y.detach(), thinnest, rotation)
    # What the affine projection sees of a world vector, but for focal lengths over depth: [N, 2, 3]
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    seen = torch.stack([one, zero, -x, zero, one, -y], -1).reshape(-1, 2, 3) @ rotation
    along = seen @ axes
    # Implicit differentiation of "the projections are equal" by the lengths.
    excess = _upper(seen @ covariance @ seen.mT - (along * lengths[:, None]) @ along.mT)
    u, v = along.detach().unbind(1)
    change = torch.linalg.solve(torch.stack([u * u, u * v, v * v], 1), excess - excess.detach())
    return _quats(axes).to(means.dtype), (lengths + change).sqrt().to(means.dtype)


def _clamped(ratio: Float[Tensor, " N"], focal: float, center: float, pixels: int) -> Float[Tensor, " N"]:
    """Limit x/z or y/z as the projection's Jacobian does."""
    return ratio.clamp((-center - 0.15 * pixels) / focal, (1.15 * pixels - center) / focal)


def _upper(matrices: Float[Tensor, "N 2 2"]) -> Float[Tensor, "N 3"]:
    return torch.stack([matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]], -1)


def _frames(
    covariance: Float[Tensor, "N 3 3"],
    x: Float[Tensor, " N"],
    y: Float[Tensor, " N"],
    thinnest: Float[Tensor, " N"],
    rotation: Float[Tensor, "3 3"],
) -> tuple[Float[Tensor, "N 3 3"], Float[Tensor, "N 3"]]:
    """Return the stand-ins' axes in the world (unit columns, right-handed) and the squares of their scales."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    ray = torch.nn.functional.normalize(torch.stack([x, y, one], -1), dim=-1)
    right = torch.nn.functional.normalize(torch.stack([one, zero, -x], -1), dim=-1)
    plane = torch.stack([right, torch.linalg.cross(ray, right)], -1)  # [N, 3, 2]
    across = rotation.T @ plane
    xx, xy, yy = _upper(across.mT @ covariance @ across).unbind(-1)
    spread = torch.hypot((xx - yy) / 2, xy)
    large = torch.maximum((xx + yy) / 2 + spread, thinnest)
    ratio = torch.maximum((xx + yy) / 2 - spread, thinnest) / large
    angle = torch.atan2(xy, (xx - yy) / 2) / 2
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(-1, 2, 2)
    basis = torch.cat([plane @ turn, ray[:, :, None]], -1)  # columns: the eigenvectors of the projection, and the ray
    half, low, up = torch.full_like(ratio, 0.5).sqrt(), (ratio / 6).sqrt(), (0.5 - ratio / 6).sqrt()
    second, third = torch.stack([half, -low, up], -1), torch.stack([-half, -low, up], -1)
    axes = torch.stack([torch.linalg.cross(second, third), second, third], -1)
    return rotation.T @ basis @ axes, torch.stack([ratio * large / (1.5 - ratio / 2), large, large], -1)


def _quats(rotations: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 4"]:
    """Turn rotation matrices into unit quaternions: of q q^T, linear in the matrix, the row of the largest element."""
    m = [[rotations[:, i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
    diagonal = [1 + a * m[0][0] + b * m[1][1] + c * m[2][2] for a, b, c in signs]
    outer = torch.stack([
        diagonal[0], wx, wy, wz, wx, diagonal[1], xy, xz, wy, xy, diagonal[2], yz, wz, xz, yz, diagonal[3],
    ], -1).reshape(-1, 4, 4)  # fmt: skip
    largest = torch.stack(diagonal, -1).argmax(-1)
    return torch.nn.functional.normalize(outer[torch.arange(len(outer), device=outer.device), largest], dim=-1)
