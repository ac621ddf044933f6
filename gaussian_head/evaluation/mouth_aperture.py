"""Does the mouth open when it should? The opening over time against the true one's. Ours; no paper's definition."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from gaussian_head.driving.regression import correlation
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Mesh, Metric, Pair
from gaussian_head.geometry.landmarks import OUTER_EYE_CORNERS, mouth_aperture

MAX_LAG = 10
"""Shifts of up to so many frames are tried."""
MIN_FRAMES = 10
"""Frames that both clips must have in common for a correlation to be told."""
_CONSTANT = 1e-6
"""An opening that varies by less (standard deviation, in eye distances) does not move."""
_NEEDS = frozenset({"truth", "landmarks"})
_DEFINITION = (
    "ours: distance of the inner lips over that of the outer eye corners, in the picture, picture against truth"
)


class MouthAperture(Metric):
    """Pearson correlation of the mouth's opening with the true one's, and the shift in time at which it is largest.

    Frames without a face in either picture are left out and counted.
    """

    entries: ClassVar = (
        Entry("aperture_correlation", "mouth r", "", "higher", _NEEDS, f"{_DEFINITION}: Pearson's r"),
        Entry(
            "aperture_lag_frames", "mouth lag", "frames", "zero", _NEEDS,
            f"{_DEFINITION}: shift of largest r within +-{MAX_LAG} frames; positive: the picture comes late", "{:+.0f}",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        super().__init__(clip)
        self._openings: list[tuple[float, float]] = []

    def update(self, pair: Pair) -> None:
        """Note both openings."""
        self._openings.append((_opening(pair.picture.mesh), _opening(pair.truth.mesh)))

    def finish(self) -> list[Figure]:
        """Correlate."""
        openings = np.array(self._openings).reshape(-1, 2).T
        seen = int(np.isfinite(openings).all(0).sum())
        without = openings.shape[1] - seen
        r = aperture_correlation(*openings)
        lag = aperture_lag(*openings)
        reason = "no face found" if without else ""
        if r is None:
            reason = f"{reason or 'too short'}: needs {MIN_FRAMES} frames" if seen < MIN_FRAMES else "a mouth is still"
        return [
            Figure("aperture_correlation", "full", r, seen, without, reason),
            Figure("aperture_lag_frames", "full", None if lag is None else float(lag), seen, without, reason),
        ]


def eye_relative_opening(mesh: Float[np.ndarray, "*T 478 3"]) -> Float[np.ndarray, "*T"] | np.floating:
    """Return the distance of the inner lips, seen in the picture, in distances of the outer eye corners."""
    right, left = OUTER_EYE_CORNERS
    flat = mesh[..., :2]
    return mouth_aperture(flat) / np.linalg.norm(flat[..., left, :] - flat[..., right, :], axis=-1)


def aperture_correlation(opening: Float[np.ndarray, "T"], truth: Float[np.ndarray, "T"], lag: int = 0) -> float | None:
    """Correlate `opening[t + lag]` with `truth[t]` over the frames that have both.

    Args:
        opening: The picture's; NaN where unknown.
        truth: The true one's; likewise.
        lag: By how many frames the picture is taken to come late.

    Returns:
        Pearson's r; None where fewer than MIN_FRAMES frames have both, or a mouth does not move.
    """
    frames = len(opening)
    if abs(lag) >= frames:
        return None
    later, earlier = opening[max(lag, 0) : frames + min(lag, 0)], truth[max(-lag, 0) : frames - max(lag, 0)]
    both = np.isfinite(later) & np.isfinite(earlier)
    if both.sum() < MIN_FRAMES or min(later[both].std(), earlier[both].std()) < _CONSTANT:
        return None
    return correlation(later[both], earlier[both])


def aperture_lag(opening: Float[np.ndarray, "T"], truth: Float[np.ndarray, "T"]) -> int | None:
    """Return the lag of largest correlation within +-MAX_LAG frames, the smallest of equals; None without any."""
    lags = sorted(range(-MAX_LAG, MAX_LAG + 1), key=abs)
    found = {lag: r for lag in lags if (r := aperture_correlation(opening, truth, lag)) is not None}
    return max(found, key=lambda lag: found[lag]) if 0 in found else None


def _opening(mesh: Mesh | None) -> float:
    return float("nan") if mesh is None else float(eye_relative_opening(mesh))
