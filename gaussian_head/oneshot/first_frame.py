"""Do coefficients match the picture that they shall move?

The 2023 challenge's entry found that a drive is spoilt by first-frame coefficients that are not the first frame's: the
renderer then moves the face by the difference as well (specs/one_shot.md 7). So landmarks that were detected are
compared with those that the coefficients put into the picture.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.geometry.coefficients import FaceCoefficients
from gaussian_head.geometry.face_alignment import FACE_SCALE, STANDARD_POINTS, align_points, fit_alignment, five_points
from gaussian_head.geometry.face_model import (
    DEEP3D_FOCAL_PX,
    DEEP3D_PICTURE_PX,
    FaceModel,
    deep3d_to_camera,
    matrix_from_angles,
    move,
)
from gaussian_head.networks.bfm import load_face_model
from gaussian_head.networks.weights import WeightsMissingError

REGIONS = {"brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48), "mouth": slice(48, 68)}
"""Of the 68 points; the outline's are not the same points in a model and in a detector."""
MODEL_LIMIT = 0.06
"""A region farther off than this, in widths of the face, does not match: 8 px of the regressor's 224."""
ALIGNMENT_LIMIT = 0.08
"""Likewise for the five points, which are the mean face's and not this person's."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstFrameCheck:
    """How far the coefficients' face is from the one in the picture."""

    error_px: float
    """Mean distance of the points, px of the picture."""
    share: float
    """The same in widths of the face."""
    worst: str
    """The region that is farthest off."""
    worst_share: float
    """How far that is, in widths of the face."""
    by_model: bool
    """Whether a face model told where the points belong; else only place, size and turn could be checked, against the
    mean face's eyes, nose and corners of the mouth, and nothing is known of the expression."""

    @property
    def matches(self) -> bool:
        """Return whether the coefficients may drive the picture."""
        return self.worst_share <= (MODEL_LIMIT if self.by_model else ALIGNMENT_LIMIT)

    @property
    def told(self) -> str:
        """Return the figures in one sentence."""
        how = "68 points of the face model" if self.by_model else "five points alone: expression not checked"
        return (
            f"the coefficients' face lies {self.error_px:.1f} px ({self.share:.1%} of the face's width; {self.worst} "
            f"{self.worst_share:.1%}) from the one in the picture ({how})"
        )


def check_first_frame(
    face: FaceCoefficients, landmarks: Float[ndarray, "68 2"], width: int, height: int, model: FaceModel | None = None
) -> FirstFrameCheck:
    """Compare the first frame's coefficients with landmarks of the picture.

    Args:
        face: Its first row counts. Without a crop, place and size are taken from the landmarks and not checked.
        landmarks: Detected, px of the picture that the coefficients belong to, pixel centres at + 0.5.
        width: Of the picture, px.
        height: Likewise.
        model: The face model; without it the check is a weaker one, see `FirstFrameCheck.by_model`.

    Raises:
        ValueError: There is no first row, or the landmarks have no extent.
    """
    if not len(face):
        raise ValueError("check_first_frame: expected coefficients of one frame at least, got none.")
    seen = landmarks - 0.5  # the alignment's pixel centres lie at integers
    fitted = fit_alignment(seen, width, height)
    transform = fitted if face.crop is None else np.array([width, height, *face.crop[0]], np.float64)
    face_width = float(np.linalg.norm(landmarks[16] - landmarks[0]))
    if model is not None:
        away = np.linalg.norm(_model_points(face, model) - align_points(seen, transform), axis=1) / transform[2]
        regions = {name: float(away[part].mean()) for name, part in REGIONS.items()}
        error = float(np.mean(away[17:]))
    else:
        points = five_points(seen)
        points[:, 1] = height - 1 - points[:, 1]
        away = np.linalg.norm(_standard_points(face, transform) - _as_standard_face(points), axis=1)
        regions = {"eyes": float(away[:2].mean()), "nose": float(away[2]), "mouth": float(away[3:].mean())}
        error = float(away.mean())
    worst = max(regions, key=regions.__getitem__)
    return FirstFrameCheck(error, error / face_width, worst, regions[worst] / face_width, model is not None)


def warn_of_mismatch(
    face: FaceCoefficients, landmarks: Float[ndarray, "68 2"], width: int, height: int, name: str
) -> FirstFrameCheck:
    """Check by the face model, where its file is present, and log a warning where the coefficients do not match.

    Args:
        face: As for `check_first_frame`, like the next three.
        landmarks: Detected.
        width: Of the picture, px.
        height: Likewise.
        name: The picture, for the message.

    Raises:
        UserError: The face model's file is damaged.
    """
    try:
        model = load_face_model()
    except WeightsMissingError:
        model = None
    found = check_first_frame(face, landmarks, width, height, model)
    if not found.matches:
        logger.warning(
            "%s: %s; this difference will move the face as well: extract the coefficients from this very picture "
            "(python -m data_utils.coefficients PICTURE).", name, found.told,
        )  # fmt: skip
    return found


def _model_points(face: FaceCoefficients, model: FaceModel) -> Float[ndarray, "68 2"]:
    """Return where the coefficients put the 68 points in the aligned picture, px, y up from its bottom."""
    points = model.landmarks_only()

    def row(name: str, most: int | None = None) -> torch.Tensor:
        return torch.from_numpy(np.float32(getattr(face, name)[:1, :most]))

    shape = points.shape(
        row("identity", points.identity_basis.shape[2]), row("expression", points.expression_basis.shape[2])
    )
    moved = move(shape, matrix_from_angles(row("angles")), row("translation"))
    x, y, z = deep3d_to_camera(moved)[0].double().numpy().T
    return DEEP3D_PICTURE_PX / 2 + DEEP3D_FOCAL_PX * np.stack([x, y], 1) / -z[:, None]


def _standard_points(face: FaceCoefficients, transform: Float[ndarray, "5"]) -> Float[ndarray, "5 2"]:
    """Return where the mean face's five points lie, turned as the coefficients say, px, y up."""
    turn = matrix_from_angles(torch.from_numpy(face.angles[0].astype(np.float64))).numpy()
    return transform[3:] + (STANDARD_POINTS @ turn.T)[:, :2] * FACE_SCALE / transform[2]


def _as_standard_face(points: Float[ndarray, "5 2"]) -> Float[ndarray, "5 2"]:
    """Return the points as far as some affine map of the mean face explains them: proportions are a person's own."""
    standard = np.column_stack([STANDARD_POINTS, np.ones(5)])
    return standard @ np.linalg.lstsq(standard, points, rcond=None)[0]
