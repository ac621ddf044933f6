"""LMD, F-LMD, LipLMD: how far the landmarks of one picture are from those of another (specs/metrics.md, section 6).

The points are material points of MediaPipe's face mesh, not the outputs of FAN or dlib, on which the papers' figures
rest: values of different systems measured here compare with each other, not with a published table.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from gaussian_head.evaluation.metric import Entry, FrameMetric, Pair
from gaussian_head.geometry.landmarks import LIPS_68

_NEEDS = frozenset({"truth", "landmarks"})
_DETECTOR = "points of MediaPipe's mesh, not FAN's or dlib's: comparable among themselves, not with papers"


class LandmarkDistance(FrameMetric):
    """Distances of the classic 68 points, or of the lips among them, in px of the picture.

    A frame counts where a face is found in both pictures; the references stop with an error instead, or skip it.
    """

    entries: ClassVar = (
        Entry(
            "lmd", "LMD", "px", "lower", _NEEDS,
            f"TalkingGaussian, metrics.py, LMDMeter of the mouth (specs/metrics.md, 6); {_DETECTOR}",
        ),
        Entry(
            "flmd", "F-LMD", "px", "lower", _NEEDS,
            f"TalkingGaussian, metrics.py, LMDMeter of the face (specs/metrics.md, 6); {_DETECTOR}",
        ),
        Entry(
            "liplmd", "LipLMD", "px", "lower", _NEEDS,
            f"ViCo challenge, compute_lmd.py: mean of |dx| and |dy|, not centred (specs/metrics.md, 6); {_DETECTOR}",
        ),
    )  # fmt: skip

    def measure(self, pair: Pair) -> dict[tuple[str, str], float | None]:
        """Compare the points of both pictures; nothing where one has no face."""
        points, truth = pair.picture.landmarks68, pair.truth.landmarks68
        if points is None or truth is None:
            return {}
        lips, true_lips = points[LIPS_68], truth[LIPS_68]
        return {
            ("lmd", "full"): landmark_distance(lips, true_lips, "centred"),
            ("flmd", "full"): landmark_distance(points, truth, "centred"),
            ("liplmd", "full"): landmark_distance(lips, true_lips, "coordinates"),
        }


def landmark_distance(
    points: Float[np.ndarray, "L 2"],
    truth: Float[np.ndarray, "L 2"],
    kind: Literal["centred", "centred_sum", "coordinates"],
) -> float:
    """Compare two sets of corresponding points of one frame, in the input's unit; NaN where a coordinate is NaN.

    Args:
        points: What is judged.
        truth: What it should be.
        kind: `centred`: mean Euclidean distance after each set is moved to its own mean (TalkingGaussian, EAT);
            `centred_sum`: its sum over the points (ATVGnet); `coordinates`: mean of |dx| and |dy| where the points are
            (ViCo; also facial-animation-evaluation where both pictures are equally wide).
    """
    if kind == "coordinates":
        return float(np.abs(points - truth).mean())
    apart = np.linalg.norm((points - points.mean(0)) - (truth - truth.mean(0)), axis=1)
    return float(apart.sum() if kind == "centred_sum" else apart.mean())


def landmark_velocity_distance(points: Float[np.ndarray, "T L 2"], truth: Float[np.ndarray, "T L 2"]) -> float:
    """Return EAT's LVD: mean distance between the steps of corresponding points from frame to frame.

    As EAT has it, the T - 1 steps are divided by T, and the points are where they are, not centred.
    """
    apart = np.linalg.norm(np.diff(points, axis=0) - np.diff(truth, axis=0), axis=2)
    return float(apart.mean(1).sum() / len(points))
