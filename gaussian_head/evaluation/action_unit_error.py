"""AUE: difference of OpenFace's action units (specs/metrics.md, section 7)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, FrameMetric, Pair, Unavailable
from gaussian_head.geometry.landmarks import OPENFACE_ACTION_UNITS
from gaussian_head.media.openface import read_intensities

LOWER_FACE = (10, 12, 14, 15, 17, 20, 23, 25, 26)
UPPER_FACE = (1, 2, 4, 5, 6, 7, 9, 45)
UNITS = {"aue": OPENFACE_ACTION_UNITS, "aue_upper": UPPER_FACE, "aue_lower": LOWER_FACE}
"""Which action units an entry sums."""
_NEEDS = frozenset({"truth", "action_units"})
_REFERENCE = "TalkingGaussian, auerror.py (specs/metrics.md, 7)"

log = logging.getLogger(__name__)


class ActionUnitError(FrameMetric):
    """Squared differences of the intensities (0..5), summed over the action units, mean over frames.

    Frames for which one side has no row, or NaN in it, are left out and counted. Frames in which OpenFace failed hold
    its zeros and count like the others, as in the reference; `read_action_units` says how many there are.
    """

    entries: ClassVar = (
        Entry("aue", "AUE", "", "lower", _NEEDS, f"{_REFERENCE}; 17 units"),
        Entry("aue_upper", "AUE upper", "", "lower", _NEEDS, f"{_REFERENCE}; brows and eyes"),
        Entry("aue_lower", "AUE lower", "", "lower", _NEEDS, f"{_REFERENCE}; mouth and chin"),
    )

    def __init__(self, clip: ClipFacts) -> None:
        """Take the action units of both sides.

        Raises:
            Unavailable: One side has none.
            UserError: They are not [T, 17].
        """
        super().__init__(clip)
        self._picture = _require(clip.picture.action_units, "the picture's")
        self._truth = _require(clip.truth.action_units, "the truth's")

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Compare the rows of one frame."""
        if pair.index >= min(len(self._picture), len(self._truth)):
            return {}
        row, true_row = self._picture[pair.index], self._truth[pair.index]
        if not np.isfinite(row + true_row).all():
            return {}
        return {(name, "full"): action_unit_error(row, true_row, units) for name, units in UNITS.items()}

    def why_excluded(self, region: str) -> str:
        """Say that there are no action units for the frame."""
        return (
            f"no action units, or NaN: given for {len(self._picture)} frames of the picture, "
            f"{len(self._truth)} of the truth"
        )


def action_unit_error(
    intensities: Float[np.ndarray, "*T 17"], truth: Float[np.ndarray, "*T 17"], units: tuple[int, ...]
) -> float:
    """Return the sum over `units` of the mean over frames of the squared difference."""
    columns = [OPENFACE_ACTION_UNITS.index(unit) for unit in units]
    squared = np.square(intensities[..., columns].astype(np.float64) - truth[..., columns])
    return float(squared.reshape(-1, len(columns)).mean(0).sum())


def check_action_units(intensities: np.ndarray, whose: str) -> Float[np.ndarray, "T 17"]:
    """Return the intensities, which must be [T, 17].

    Raises:
        UserError: They are not.
    """
    if intensities.ndim != 2 or intensities.shape[1] != len(OPENFACE_ACTION_UNITS):
        raise UserError(
            f"{whose} action units must be [T, {len(OPENFACE_ACTION_UNITS)}], OpenFace's intensity columns, "
            f"got {list(intensities.shape)}."
        )
    return intensities


def read_action_units(path: Path) -> Float[np.ndarray, "T 17"]:
    """Read a CSV of OpenFace 2.2 (FeatureExtraction, or FaceLandmarkVidMulti of which one face is followed).

    Where the file follows several faces (`face_id`), the one with the most rows is taken, placed by the column
    `frame` (OpenFace counts from 1), and its missing frames are NaN. Other faces, and frames in which OpenFace says
    that it failed (`success` 0; its zeros are kept, as the reference keeps them), are told by a warning.

    Returns:
        Intensities in 0..5, in the order of OPENFACE_ACTION_UNITS; NaN where a value is no number.

    Raises:
        FileNotFoundError: No such file.
        UserError: No rows, or columns are missing; names them.
    """
    intensities, others = read_intensities(path, OPENFACE_ACTION_UNITS, ("face_id", "frame", "success"))
    failed = others["success"] == 0
    faces, rows = np.unique(others["face_id"][np.isfinite(others["face_id"])], return_counts=True)
    if len(faces) > 1:
        mine = others["face_id"] == faces[np.argmax(rows)]
        log.warning(
            "%s follows %d faces; face %d is taken (%d of %d rows).",
            path, len(faces), faces[np.argmax(rows)], mine.sum(), len(mine),
        )  # fmt: skip
        intensities, failed = _place(path, intensities[mine], others["frame"], mine), failed[mine]
    if failed.any():
        log.warning("%s: OpenFace failed in %d of %d frames; its zeros count.", path, failed.sum(), len(intensities))
    return intensities


def _place(
    path: Path, intensities: Float[np.ndarray, "R 17"], frame: Float[np.ndarray, "N"], mine: np.ndarray
) -> Float[np.ndarray, "T 17"]:
    """Put the rows of one face where their frames are."""
    if not (np.isfinite(frame).all() and (frame >= 1).all()):
        raise UserError(f"{path} follows several faces, so each row must tell its frame, 1 or more, in a column frame.")
    placed = np.full((int(frame.max()), intensities.shape[1]), np.nan)
    placed[frame[mine].astype(int) - 1] = intensities
    return placed


def _require(intensities: np.ndarray | None, whose: str) -> Float[np.ndarray, "T 17"]:
    if intensities is None:
        raise Unavailable(f"needs {whose} action units (a CSV of OpenFace FeatureExtraction)")
    return check_action_units(intensities, whose)
