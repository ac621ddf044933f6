"""Ridge regression with weighted samples, its penalty chosen on held-out blocks of time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates, for inputs scaled to unit mean square over samples and columns."""
TOLERANCE = 0.05
FOLDS = 5
GUARD_FRAMES = 8
"""Frames left out on both sides of a held-out block: they look alike."""


def solve(
    x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N K"], weights: Float[np.ndarray, " N"], penalty: float
) -> Float[np.ndarray, "D K"]:
    """Minimise sum_n w_n |x_n B - y_n|^2 + penalty |B|^2, in whichever of D and N is smaller."""
    root = np.sqrt(weights)[:, None]
    x, y = x * root, y * root
    if len(x) < x.shape[1]:
        return x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def predict_held_out(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "N K"],
    weights: Float[np.ndarray, " N"],
    time: int,
    penalty: float,
) -> Float[np.ndarray, "T K"]:
    """Predict each of the first `time` samples, which are frames in order, from a fit that has not seen it.

    Samples after the first `time` belong to every fit.
    """
    predicted = np.zeros((time, y.shape[1]))
    for block in np.array_split(np.arange(time), FOLDS):
        kept = np.ones(len(x), bool)
        kept[max(0, block[0] - GUARD_FRAMES) : min(time, block[-1] + 1 + GUARD_FRAMES)] = False
        predicted[block] = x[block] @ solve(x[kept], y[kept], weights[kept], penalty)
    return predicted


def choose_penalty(
    x: Float[np.ndarray, "N D"],
    y: Float[np.ndarray, "N K"],
    weights: Float[np.ndarray, " N"],
    time: int,
    score: Callable[[Float[np.ndarray, "T K"]], float],
    penalties: tuple[float, ...] = PENALTIES,
) -> tuple[float, Float[np.ndarray, "T K"]]:
    """Choose the smallest penalty whose held-out score comes within TOLERANCE of the best one's.

    Smaller penalties move more; squared error would choose the stillest.

    Args:
        x: Inputs: `time` frames in order, then samples that every fit may see.
        y: Targets.
        weights: Importance of each sample.
        time: Number of frames.
        score: Judges held-out predictions; larger is better.
        penalties: Candidates, ascending.

    Returns:
        The penalty, and the held-out predictions under it.
    """
    tried = [(penalty, predict_held_out(x, y, weights, time, penalty)) for penalty in penalties]
    scores = [score(predicted) for _, predicted in tried]
    return next(pair for pair, found in zip(tried, scores, strict=True) if found >= max(scores) - TOLERANCE)
