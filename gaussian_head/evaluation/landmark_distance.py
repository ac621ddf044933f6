"""LMD: how far the lips of one picture are from those of another, whatever the face's place."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from gaussian_head.geometry.landmarks import LIPS_68, MESH_TO_68
from gaussian_head.networks.face_mesh import FaceMeshDetector


class LipDetector:
    """Finds the 20 points 48-67 of one clip's pictures, in order, with MediaPipe's face mesh."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            UserError: mediapipe is not installed.
        """
        self._detector = FaceMeshDetector()

    def __enter__(self) -> LipDetector:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._detector.__exit__(kind, error, trace)

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "20 2"] | None:
        """Return the lips in px, or None where no face was found."""
        points = self._detector.detect(picture)
        return None if points is None else points[MESH_TO_68[LIPS_68], :2]


def lip_distance(lips: Float[np.ndarray, "20 2"], truth: Float[np.ndarray, "20 2"]) -> float:
    """Return the mean distance of corresponding points, each set moved to its centre, in the input's unit."""
    apart = (lips - lips.mean(0)) - (truth - truth.mean(0))
    return float(np.linalg.norm(apart, axis=1).mean())
