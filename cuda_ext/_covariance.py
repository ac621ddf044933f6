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

import math

import torch
from jaxtyping import Float
from torch import Tensor

THINNEST_PX = 1e-3
"""Covariances that look thinner than this are taken to be this thick: 3e-6 of what the low-pass adds."""
THINNEST_RATIO = 1e-12
"""Likewise for the ratio of the variances across and along."""


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
        Unit quaternions (w, x, y, z), without gradient, and scales, differentiable by covariances and means;
        quaternions of NaN, which `rasterize` drops, where a covariance is not finite.
    """
    rotation, translation = viewmat.double()[:3, :3], viewmat.double()[:3, 3]
    camera = means.double() @ rotation.T + translation
    z = torch.where(camera[:, 2].detach() > near, camera[:, 2], torch.ones_like(camera[:, 2]))
    x, y = (_clamped(camera[:, i] / z, float(K[i, i]), float(K[i, 2]), size[i]) for i in (0, 1))
    finite = covariances.isfinite().all(1, keepdim=True)
    covariance = torch.where(finite, covariances, 1).double() @ _turning(rotation)
    thinnest = (THINNEST_PX / max(float(K[0, 0]), float(K[1, 1])) * z.detach()).square()
    axes, lengths = _frames(covariance.detach(), x.detach(), y.detach(), thinnest)
    # The affine projection sees x - (x/z) z and y - (y/z) z of a vector, but for focal lengths over depth.
    u, v = axes[:, 0] - x[:, None] * axes[:, 2], axes[:, 1] - y[:, None] * axes[:, 2]  # [N, 3]: of the three axes
    xx, xy, xz, yy, yz, zz = covariance.unbind(1)
    excess = (
        xx - 2 * x * xz + x * x * zz - (lengths * u * u).sum(1),
        xy - y * xz - x * yz + x * y * zz - (lengths * u * v).sum(1),
        yy - 2 * y * yz + y * y * zz - (lengths * v * v).sum(1),
    )
    # Implicit differentiation of "the projections are equal" by the lengths.
    change = _solve(u.detach(), v.detach(), *(part - part.detach() for part in excess))
    quats = _quats((axes.mT @ rotation).mT)
    return torch.where(finite, quats, math.nan).to(means.dtype), (lengths + change).sqrt().to(means.dtype)


def _clamped(ratio: Float[Tensor, " N"], focal: float, center: float, pixels: int) -> Float[Tensor, " N"]:
    """Limit x/z or y/z as the projection's Jacobian does."""
    return ratio.clamp((-center - 0.15 * pixels) / focal, (1.15 * pixels - center) / focal)


def _turning(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "6 6"]:
    """Return what six covariances, as a row, are multiplied by to turn: S becomes R S R^T."""
    first, second = torch.triu_indices(3, 3, device=rotation.device)
    straight = rotation[first][:, first] * rotation[second][:, second]
    crossed = rotation[first][:, second] * rotation[second][:, first]
    return (straight + crossed * (first != second)).T


def _frames(
    covariance: Float[Tensor, "N 6"], x: Float[Tensor, " N"], y: Float[Tensor, " N"], thinnest: Float[Tensor, " N"]
) -> tuple[Float[Tensor, "N 3 3"], Float[Tensor, "N 3"]]:
    """Return the stand-ins' axes in the camera (unit columns, right-handed) and the squares of their scales."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    ray = torch.nn.functional.normalize(torch.stack([x, y, one], 1), dim=1)
    right = torch.nn.functional.normalize(torch.stack([one, zero, -x], 1), dim=1)
    down = torch.linalg.cross(ray, right)
    xx, xy, yy = (_form(covariance, *pair) for pair in ((right, right), (right, down), (down, down)))
    spread = torch.hypot((xx - yy) / 2, xy)
    large = torch.maximum((xx + yy) / 2 + spread, thinnest)
    ratio = (torch.maximum((xx + yy) / 2 - spread, thinnest) / large).clamp(min=THINNEST_RATIO)
    angle = (torch.atan2(xy, (xx - yy) / 2) / 2)[:, None]
    major, minor = angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right
    common = (0.5 - ratio / 6).sqrt()[:, None] * ray - (ratio / 6).sqrt()[:, None] * minor
    second, third = common + 0.5**0.5 * major, common - 0.5**0.5 * major
    axes = torch.stack([torch.linalg.cross(second, third), second, third], 2)
    return axes, torch.stack([ratio * large / (1.5 - ratio / 2), large, large], 1)


def _form(covariance: Float[Tensor, "N 6"], a: Float[Tensor, "N 3"], b: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Return a^T S b."""
    first, second = torch.triu_indices(3, 3, device=a.device)
    pairs = a[:, first] * b[:, second] + a[:, second] * b[:, first] * (first != second)
    return (covariance * pairs).sum(1)


def _solve(
    u: Float[Tensor, "N 3"], v: Float[Tensor, "N 3"], xx: Float[Tensor, " N"], xy: Float[Tensor, " N"],
    yy: Float[Tensor, " N"],
) -> Float[Tensor, "N 3"]:  # fmt: skip
    """Find l so that sum_i l_i (u_i, v_i) (u_i, v_i)^T is the symmetric matrix [[xx, xy], [xy, yy]].

    Two vectors p, q across the other two axes take the sum to l_i (p . a_i) (q . a_i).
    """
    others = [(u.roll(shift, 1), v.roll(shift, 1)) for shift in (1, 2)]
    (u1, v1), (u2, v2) = others
    seen = v1 * v2 * xx[:, None] - (u1 * v2 + v1 * u2) * xy[:, None] + u1 * u2 * yy[:, None]
    return seen / ((u1 * v - v1 * u) * (u2 * v - v2 * u))


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
