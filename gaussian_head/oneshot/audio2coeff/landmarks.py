"""The 68 landmarks of a morphable face, and how far its eyes are open, for losses of expressions (one_shot.md 3.5)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gaussian_head.errors import UserError
from gaussian_head.geometry.face_model import (
    DEEP3D_FOCAL_PX,
    DEEP3D_PICTURE_PX,
    FaceModel,
    deep3d_to_camera,
    matrix_from_angles,
    move,
    project,
)

EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
"""Corner, two of the upper lid, corner, two of the lower lid."""


class LandmarkModel:
    """A face model cut down to the vertices of its landmarks, which do not slide along the outline."""

    def __init__(self, model: FaceModel, device: torch.device) -> None:
        """Take a model.

        Raises:
            UserError: It has fewer coefficients than the regressor gives (80 of identity, 64 of expression).
        """
        held = model.identity_basis.shape[2], model.expression_basis.shape[2]
        if held[0] < 80 or held[1] < 64:
            raise UserError(
                f"the face model has {held[0]} identity and {held[1]} expression coefficients; expected 80 and 64: "
                "convert BFM-2009 with its expressions (python -m data_utils.convert_bfm)."
            )
        at = model.landmarks
        self._mean = model.mean_shape[at].to(device)
        self._identity = model.identity_basis[at, :, :80].to(device)
        self._expression = model.expression_basis[at, :, :64].to(device)

    def points(self, identity: Float[Tensor, "*B 80"], expression: Float[Tensor, "*B 64"]) -> Float[Tensor, "*B 68 3"]:
        """Return the landmarks in the head's frame, decimetres."""
        moved = torch.einsum("lci,...i->...lc", self._identity, identity)
        return self._mean + moved + torch.einsum("lce,...e->...lc", self._expression, expression)


def seen(
    points: Float[Tensor, "N 68 3"], angles: Float[Tensor, "N 3"], translation: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 68 2"]:
    """Return where the landmarks are in the regressor's picture of 224 px, px."""
    camera = deep3d_to_camera(move(points, matrix_from_angles(angles), translation))
    return project(camera, DEEP3D_FOCAL_PX, points.new_tensor([DEEP3D_PICTURE_PX / 2] * 2))


def aperture(points: Float[Tensor, "*B 68 3"]) -> Float[Tensor, "*B 2"]:
    """Return height over width of either eye; 0 when it is closed."""
    ratios = []
    for corner, first, second, other, third, fourth in EYES:
        height = _distance(points, first, fourth) + _distance(points, second, third)
        ratios.append(height / (2 * _distance(points, corner, other)))
    return torch.stack(ratios, -1)


def _distance(points: Float[Tensor, "*B 68 3"], one: int, other: int) -> Float[Tensor, "*B"]:
    # the gradient of a distance of 0 would not be finite
    return ((points[..., one, :] - points[..., other, :]).square().sum(-1) + 1e-10).sqrt()
