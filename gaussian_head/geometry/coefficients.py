"""The 257 numbers of Deep3DFaceRecon and the orders in which the one-shot pipelines keep them (specs/one_shot.md 0).

T frames. The crop is what `face_alignment` found: scale and place (px) of the face in the picture.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

COEFFICIENTS = 257
IDENTITY, EXPRESSION, TEXTURE = slice(0, 80), slice(80, 144), slice(144, 224)
ANGLES, LIGHT, TRANSLATION = slice(224, 227), slice(227, 254), slice(254, 257)
CROP = slice(2, 5)
"""Scale and place within transform parameters [width, height, scale, x, y]."""
VICO_SIDE_PX = 256
"""Width and height that ViCo's generated files name, whatever the picture's were."""


def motion_vectors(
    coefficients: Float[ndarray, "T 257"], transforms: Float[ndarray, "T 5"] | None = None
) -> Float[ndarray, "T M"]:
    """Return what SadTalker and PIRender drive a face by: expression 64, angles 3, translation 3, and the crop 3.

    Args:
        coefficients: As the regressor gives them.
        transforms: Transform parameters; without them the crop is left out: 70 numbers instead of 73.
    """
    parts = [coefficients[:, EXPRESSION], coefficients[:, ANGLES], coefficients[:, TRANSLATION]]
    return np.concatenate(parts if transforms is None else [*parts, transforms[:, CROP]], 1)


def split_for_vico(
    coefficients: Float[ndarray, "T 257"], transforms: Float[ndarray, "T 5"]
) -> tuple[Float[ndarray, "T 73"], Float[ndarray, "T 187"]]:
    """Return what moves (angles, expression, translation, crop) and what stays (identity, light, texture).

    Source: specs/vico.md 1.3.
    """
    moving = [coefficients[:, ANGLES], coefficients[:, EXPRESSION], coefficients[:, TRANSLATION], transforms[:, CROP]]
    return np.concatenate(moving, 1), np.concatenate([coefficients[:, part] for part in (IDENTITY, LIGHT, TEXTURE)], 1)


def join_from_vico(
    moving: Float[ndarray, "T 73"], fixed: Float[ndarray, "T 187"]
) -> tuple[Float[ndarray, "T 257"], Float[ndarray, "T 5"]]:
    """Return coefficients and transform parameters, the reverse of `split_for_vico` (specs/vico.md 6)."""
    angles, expression, translation, crop = np.split(moving, [3, 67, 70], 1)
    identity, light, texture = np.split(fixed, [80, 107], 1)
    sides = np.full((len(moving), 2), VICO_SIDE_PX, moving.dtype)
    return (
        np.concatenate([identity, expression, texture, angles, light, translation], 1),
        np.concatenate([sides, crop], 1),
    )
