"""Deep3DFaceRecon's alignment: five points of a face put where its regressor expects them (specs/one_shot.md 1.3).

Places are px with pixel centres at integers; in `transform_params` y runs up from the picture's last row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

SIDE = 224
"""Width and height of the aligned picture, px."""
FACE_SCALE = 102.0
"""Px of the aligned picture to a unit of STANDARD_POINTS."""
STANDARD_POINTS = np.array([
    (-0.31148657, 0.29036078, 0.13377953), (0.30979887, 0.28972036, 0.13179526), (0.0032535, -0.04617932, 0.55244243),
    (-0.25216928, -0.38133916, 0.22405732), (0.2484662, -0.38128236, 0.22235769),
])  # fmt: skip
"""Eyes, nose and corners of the mouth of the model's mean face, left to right in the picture; y up."""


def five_points(landmarks: Float[ndarray, "68 2"]) -> Float[ndarray, "5 2"]:
    """Return eyes (means of their corners), tip of the nose and corners of the mouth, left to right in the picture."""
    eyes = [landmarks[[36, 39]].mean(0), landmarks[[42, 45]].mean(0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def fit_alignment(
    landmarks: Float[ndarray, "68 2"], width: int, height: int, standard: Float[ndarray, "5 3"] = STANDARD_POINTS
) -> Float32[ndarray, "5"]:
    """Fit the place and the size of a face.

    The least-squares affine map from the standard points to the picture gives both; its turn is not used.

    Args:
        landmarks: Px of the picture, pixel centres at integers, y down.
        width: Of the picture, px.
        height: Likewise.
        standard: Five points of the mean face, in the order of `five_points`.

    Returns:
        `transform_params`: width, height, the scale that the picture must be resized by, and the face's place (x, y)
        in px, y up from the last row.

    Raises:
        ValueError: The points have no extent or are not finite.
    """
    points = five_points(np.asarray(landmarks, np.float64))
    points[:, 1] = height - 1 - points[:, 1]
    affine = np.linalg.lstsq(np.column_stack([standard, np.ones(5)]), points, rcond=None)[0]
    size = np.linalg.norm(affine[:3], axis=0).mean()
    if not np.isfinite(size) or size < 1e-6:
        raise ValueError("landmarks: expected finite points of a face, got points without extent; detect them again.")
    return np.array([width, height, FACE_SCALE / size, *affine[3]], np.float32)


def align_picture(landmarks: Float[ndarray, "68 2"], picture: UInt8[ndarray, "H W 3"]) -> Float32[ndarray, "5"]:
    """Fit the alignment to landmarks whose pixel centres lie at + 0.5, as everywhere else in this project.

    Raises:
        ValueError: As `fit_alignment`.
    """
    return fit_alignment(landmarks - 0.5, picture.shape[1], picture.shape[0])


def fill_gaps(transforms: Sequence[Float32[ndarray, "5"] | None]) -> Float32[ndarray, "T 5"]:
    """Give pictures without a face (None) the alignment of the nearest one with a face; of two, the earlier.

    Raises:
        ValueError: None of them has a face.
    """
    known = np.array([k for k, transform in enumerate(transforms) if transform is not None])
    if not len(known):
        raise ValueError(f"fill_gaps: expected a face in one picture at least, got none in {len(transforms)}.")
    return np.stack([transforms[known[np.abs(known - k).argmin()]] for k in range(len(transforms))])


def cut_aligned(image: UInt8[ndarray, "H W 3"], transform: Float[ndarray, "5"]) -> UInt8[ndarray, "224 224 3"]:
    """Resize a picture and cut the aligned face out, black where the picture ends.

    Equal to resizing the whole picture with Pillow's bicubic filter (antialiased where it shrinks) and cutting: only
    what is cut out is computed.

    Args:
        image: 0..255.
        transform: As `fit_alignment` gives it.
    """
    (resized_width, resized_height), (left, up) = _placing(transform)
    columns = _filter(image.shape[1], resized_width, left)
    rows = _filter(image.shape[0], resized_height, up)
    lines = np.flatnonzero(rows.any(0))
    lines = slice(lines[0], lines[-1] + 1) if len(lines) else slice(0)
    narrow = _to_bytes(np.einsum("xw,hwc->hxc", columns, np.float32(image[lines]), optimize=True))
    return _to_bytes(np.einsum("yh,hxc->yxc", rows[:, lines], np.float32(narrow), optimize=True))


def align_points(points: Float[ndarray, "N 2"], transform: Float[ndarray, "5"]) -> Float[ndarray, "N 2"]:
    """Carry points along: px of the picture, y down, to px of the aligned picture, y up from its last row's bottom."""
    width, height, scale, x, y = np.asarray(transform, np.float64)
    (resized_width, resized_height), _ = _placing(transform)
    raised = np.column_stack([points[:, 0], height - 1 - points[:, 1]])
    moved = (raised - (x, y) + (width / 2, height / 2)) * scale
    return moved - (resized_width / 2 - SIDE / 2, resized_height / 2 - SIDE / 2)


def _placing(transform: Float[ndarray, "5"]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return width and height of the resized picture, and where in it the cut begins (left, top)."""
    width, height, scale, x, y = np.asarray(transform, np.float64)
    resized = int(width * scale), int(height * scale)
    left = int(resized[0] / 2 - SIDE / 2 + (x - width / 2) * scale)
    up = int(resized[1] / 2 - SIDE / 2 + (height / 2 - y) * scale)
    return resized, (left, up)


def _filter(length: int, resized: int, start: int) -> Float32[ndarray, "224 L"]:
    """Return the weights of a line's pixels in each pixel of the cut; zeros outside the resized line."""
    step = length / max(resized, 1)
    stretch = max(step, 1.0)
    centres = (start + np.arange(SIDE) + 0.5) * step
    distance = (np.arange(length) + 0.5 - centres[:, None]) / stretch
    weights = _bicubic(np.abs(distance))
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
    inside = (start + np.arange(SIDE) >= 0) & (start + np.arange(SIDE) < resized)
    return np.float32(weights * inside[:, None])


def _bicubic(x: Float[ndarray, "*N"]) -> Float[ndarray, "*N"]:
    """Keys's kernel with a = -1/2 (1981)."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _to_bytes(image: Float[ndarray, "H W 3"]) -> UInt8[ndarray, "H W 3"]:
    return np.uint8(np.clip(image + 0.5, 0, 255))
