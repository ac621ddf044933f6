"""Which points of the face mesh speech moves, and how much of each point's motion is speech."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from gaussian_head.geometry.landmarks import INNER_LIPS, OUTER_LIPS

CHIN = np.array([152, 148, 377, 176, 400, 199, 200, 18, 175, 171, 396])
FULL_M = 0.012
"""Within this distance of lips or chin, speech alone moves the skin."""
FREE_M = 0.032
"""From this distance on, it does not."""


def speech_weights(mean_landmarks: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, " 478"]:
    """Weigh each mesh point: 1 on lips and chin, 0 on the upper face, falling smoothly over the cheeks.

    Args:
        mean_landmarks: The subject's mean face, metres.
    """
    core = mean_landmarks[np.concatenate([OUTER_LIPS, INNER_LIPS, CHIN])]
    distance = np.linalg.norm(mean_landmarks[:, None] - core, axis=-1).min(1)
    share = np.clip((FREE_M - distance) / (FREE_M - FULL_M), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def lip_error_mm(predicted: Float[np.ndarray, "T 478 3"], true: Float[np.ndarray, "T 478 3"]) -> float:
    """Measure the mean distance of the lips' points, of landmarks in metres."""
    lips = np.concatenate([OUTER_LIPS, INNER_LIPS])
    return float(np.linalg.norm(predicted[:, lips] - true[:, lips], axis=-1).mean() * 1e3)
