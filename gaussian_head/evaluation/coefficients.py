"""ExpL1 and PoseL1: distances of the face's 3DMM coefficients (specs/metrics.md, section 4.2)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, FrameMetric, Pair, Unavailable

COEFFICIENTS = 257
EXPRESSION = np.arange(80, 144)
"""Columns of the expression."""
POSE = np.r_[224:227, 254:257]
"""Columns of the angles (radians) and of the translation."""
_NEEDS = frozenset({"truth", "coefficients"})
_DEFINITION = "ViCo challenge, README: no script was published, the definition is that of specs/metrics.md, 4.2"


class CoefficientError(FrameMetric):
    """Mean absolute difference of Deep3DFaceRecon's coefficients, frame by frame.

    Frames for which one side has no row are left out and counted. The value depends on who extracted the
    coefficients: only figures of one extractor compare.
    """

    entries: ClassVar = (
        Entry("expl1", "ExpL1", "", "lower", _NEEDS, f"{_DEFINITION}; 64 expression coefficients", "{:.4f}"),
        Entry("posel1", "PoseL1", "", "lower", _NEEDS, f"{_DEFINITION}; 3 angles, 3 translations", "{:.4f}"),
    )

    def __init__(self, clip: ClipFacts) -> None:
        """Take the coefficients of both sides.

        Raises:
            Unavailable: One side has none.
            UserError: They are not [T, 257], or not all finite.
        """
        super().__init__(clip)
        self._picture = _require(clip.picture.coefficients, "the picture's")
        self._truth = _require(clip.truth.coefficients, "the truth's")

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Compare the rows of one frame."""
        if pair.index >= min(len(self._picture), len(self._truth)):
            return {}
        row, true_row = self._picture[pair.index], self._truth[pair.index]
        return {
            ("expl1", "full"): coefficient_distance(row, true_row, EXPRESSION),
            ("posel1", "full"): coefficient_distance(row, true_row, POSE),
        }

    def why_excluded(self, region: str) -> str:
        """Say that the coefficients end before the pictures."""
        return f"coefficients are given for {len(self._picture)} frames of the picture, {len(self._truth)} of the truth"


def coefficient_distance(
    coefficients: Float[np.ndarray, "*T 257"], truth: Float[np.ndarray, "*T 257"], columns: np.ndarray
) -> float:
    """Return the mean |difference| over the frames and the columns given."""
    return float(np.abs(coefficients[..., columns].astype(np.float64) - truth[..., columns]).mean())


def check_coefficients(coefficients: np.ndarray, whose: str) -> Float[np.ndarray, "T 257"]:
    """Return the coefficients, which must be [T, 257] and finite.

    Args:
        coefficients: As read from a file.
        whose: Opening of the message, as in "the truth's".

    Raises:
        UserError: They are not.
    """
    if coefficients.ndim != 2 or coefficients.shape[1] != COEFFICIENTS:
        shape = list(coefficients.shape)
        raise UserError(
            f"{whose} coefficients must be [T, {COEFFICIENTS}], Deep3DFaceRecon's vector of each frame, got {shape}."
        )
    bad = np.flatnonzero(~np.isfinite(coefficients).all(1))
    if len(bad):
        raise UserError(
            f"{whose} coefficients must be finite, got NaN or infinity in {len(bad)} of {len(coefficients)} frames, "
            f"first in frame {bad[0]}; extract them again."
        )
    return coefficients


def _require(coefficients: np.ndarray | None, whose: str) -> Float[np.ndarray, "T 257"]:
    if coefficients is None:
        raise Unavailable(f"needs {whose} 3DMM coefficients ([T, {COEFFICIENTS}], Deep3DFaceRecon)")
    return check_coefficients(coefficients, whose)
