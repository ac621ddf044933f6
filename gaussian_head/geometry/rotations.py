"""Rotations: Euler angles of the field's tracker, rotation vectors, quaternions (w, x, y, z)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NECK_PIVOT_M = (0.0, -0.05, -0.08)
"""Where a head turns, in its own frame: about the upper end of the spine."""


def matrix_from_euler(euler: Float[Tensor, "*T 3"]) -> Float[Tensor, "*T 3 3"]:
    """Turn tracker angles (theta, phi, psi) in radians into R = Rx(theta) Ry(phi) Rz(psi).

    The signs are those of the field's trackers (specs/gaussian_head.md b.1): Rx has +sin above the diagonal, Ry -sin.
    """
    theta, phi, psi = euler.unbind(-1)
    one, zero = torch.ones_like(theta), torch.zeros_like(theta)
    c, s = torch.cos, torch.sin
    rx = torch.stack([one, zero, zero, zero, c(theta), s(theta), zero, -s(theta), c(theta)], -1)
    ry = torch.stack([c(phi), zero, -s(phi), zero, one, zero, s(phi), zero, c(phi)], -1)
    rz = torch.stack([c(psi), -s(psi), zero, s(psi), c(psi), zero, zero, zero, one], -1)
    shape = (*euler.shape[:-1], 3, 3)
    return rx.reshape(shape) @ ry.reshape(shape) @ rz.reshape(shape)


def euler_from_matrix(rotation: Float[Tensor, "*T 3 3"]) -> Float[Tensor, "*T 3"]:
    """Inverse of `matrix_from_euler` for |phi| < 90 degrees."""
    phi = torch.asin((-rotation[..., 0, 2]).clamp(-1, 1))
    psi = torch.atan2(-rotation[..., 0, 1], rotation[..., 0, 0])
    theta = torch.atan2(rotation[..., 1, 2], rotation[..., 2, 2])
    return torch.stack([theta, phi, psi], -1)


def matrix_from_rotvec(rotvec: Float[Tensor, "*T 3"]) -> Float[Tensor, "*T 3 3"]:
    """Turn rotation vectors (axis times angle in radians) into matrices (Rodrigues); smooth at zero."""
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*rotvec.shape[:-1], 3, 3)
    squared = rotvec.square().sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    return torch.eye(3, dtype=rotvec.dtype, device=rotvec.device) + first * skew + second * (skew @ skew)


def matrix_from_quat(quats: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Turn quaternions (w, x, y, z), of any non-zero length, into rotation matrices."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def turned(viewmat: Float[Tensor, "4 4"], pitch_deg: float, yaw_deg: float) -> Float[Tensor, "4 4"]:
    """Turn the head of a pose (world to camera) where the neck turns.

    Args:
        viewmat: The pose before.
        pitch_deg: About x; positive: the head nods down.
        yaw_deg: About y; positive: the face turns to the subject's left.
    """
    angles = torch.tensor([pitch_deg, yaw_deg, 0.0], dtype=torch.float64).deg2rad()
    turn, pivot = torch.eye(4).to(viewmat), torch.tensor(NECK_PIVOT_M).to(viewmat)
    turn[:3, :3] = matrix_from_rotvec(angles).to(viewmat)
    turn[:3, 3] = pivot - turn[:3, :3] @ pivot
    return viewmat @ turn
