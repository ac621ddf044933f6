"""A tracked face: its shape, its expressions, its poses; how it projects, and how shapes are laid onto each other.

Notation, here and in the modules that work on it: T frames, L = 478 landmarks, K expression components. `shape` X0
[L, 3] and `basis` B [K, L, 3] live in the head frame (metres); frame t shows the points X0 + sum_k c[t, k] B[k], moved
into the camera by R[t], t[t]. Camera axes here are OpenGL's (x right, y up, z backward), as in the field's tracker
(specs/gaussian_head.md b.1), so u = cx - f X/Z and v = cy + f Y/Z with Z < 0 in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.geometry.landmarks import MESH_POINTS, RIGID


@dataclass
class FaceTrack:
    """A tracked clip (see the module's notation)."""

    focal_px: float
    shape: Float[Tensor, "L 3"]
    basis: Float[Tensor, "K L 3"]
    coefficients: Float[Tensor, "T K"]
    rotations: Float[Tensor, "T 3 3"]
    translations: Float[Tensor, "T 3"]

    def points(self) -> Float[Tensor, "T L 3"]:
        """Return the landmarks in the head frame, metres: the face without its pose."""
        return self.shape + combine(self.coefficients, self.basis)

    def project(self, center: Float[Tensor, "2"]) -> Float[Tensor, "T L 2"]:
        """Return the landmarks' pixel positions for a principal point at `center` px."""
        return project(self.points(), self.rotations, self.translations, self.focal_px, center)


def project(
    points: Float[Tensor, "T L 3"],
    rotations: Float[Tensor, "T 3 3"],
    translations: Float[Tensor, "T 3"],
    focal_px: float | Tensor,
    center: Float[Tensor, "2"],
) -> Float[Tensor, "T L 2"]:
    """Project head-frame points (metres) to pixels."""
    camera = points @ rotations.transpose(1, 2) + translations[:, None]
    flip = camera.new_tensor([-1.0, 1.0])
    return center + flip * focal_px * camera[..., :2] / camera[..., 2:]


def combine(coefficients: Float[Tensor, "T K"], basis: Float[Tensor, "K L 3"]) -> Float[Tensor, "T L 3"]:
    """Return what the expressions add to the shape, metres."""
    return (coefficients @ basis.flatten(1)).reshape(len(coefficients), *basis.shape[1:])


def align_shapes(
    points: Float[Tensor, "T L 3"],
    target: Float[Tensor, "L 3"],
    weights: Float[Tensor, "L"],
    rotation: Float[Tensor, "T 3 3"] | None = None,
) -> tuple[Float[Tensor, "T"], Float[Tensor, "T 3 3"], Float[Tensor, "T 3"]]:
    """Find the similarities scale * R @ target + offset nearest to each frame's points (Umeyama 1991).

    Given `rotation`, R is that, and the scale and offset alone are found.
    """
    w = weights / weights.sum()
    mean, target_mean = (points * w[:, None]).sum(1), (target * w[:, None]).sum(0)
    a, b = points - mean[:, None], target - target_mean
    covariance = torch.einsum("tli,l,lj->tij", a, w, b)
    if rotation is None:
        u, s, vh = torch.linalg.svd(covariance)
        sign = torch.ones_like(s)
        sign[:, 2] = torch.det(u @ vh).sign()
        rotation = u @ torch.diag_embed(sign) @ vh
        along = (s * sign).sum(1)
    else:
        along = (covariance * rotation).sum((1, 2))
    scale = along / (w[:, None] * b * b).sum()
    return scale, rotation, mean - scale[:, None] * (rotation @ target_mean)


def rigid_weights(dtype: torch.dtype) -> Float[Tensor, "L"]:
    """Weigh landmarks for aligning faces: those that expressions hardly move count most."""
    weights = torch.full((MESH_POINTS,), 0.1, dtype=dtype)
    weights[torch.from_numpy(RIGID)] = 4.0
    return weights
