"""Does the head tremble? Second differences of its rotation. Ours; no paper's definition."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import ClipFacts, Entry, Figure, Metric, Pair
from gaussian_head.geometry.landmarks import RIGID


class PoseJitter(Metric):
    """Mean length of the second difference of the head's rotation, in degrees per frame squared; needs no truth.

    The rotation is that of the picture's cameras where they are known, else of the mesh's rigid points. Lower is
    better: heads turn smoothly over many frames, and what is left after two differences is mostly trembling. A still
    head has 0, and the detector trembles too, so the true footage's figure is the one to come near. It is per frame:
    figures of one frame rate compare. Frames without a face, or not finite, are left out and counted; a second
    difference needs three frames running.
    """

    entries: ClassVar = (
        Entry(
            "pose_jitter", "pose jitter", "deg/frame^2", "lower", frozenset({"landmarks"}),
            "ours: mean |second difference| of the head's rotation, from the cameras given, else from a rigid fit "
            "(Kabsch) of the mesh's rigid points from frame to frame",
        ),
    )  # fmt: skip

    def __init__(self, clip: ClipFacts) -> None:
        """Take the cameras, if there are some.

        Raises:
            UserError: The cameras are not [T, 4, 4].
        """
        super().__init__(clip)
        self._viewmats = clip.picture.viewmats
        if self._viewmats is not None and (self._viewmats.ndim != 3 or self._viewmats.shape[1:] != (4, 4)):
            raise UserError(f"the picture's cameras must be [T, 4, 4], got {list(self._viewmats.shape)}.")
        self._previous: np.ndarray | None = None
        """The rigid points, or the axes of the camera, one a row, of the frame before."""
        self._step: np.ndarray | None = None
        """Rotation vector from the frame before the last to the last, degrees."""
        self._trace: list[float | None] = []
        self._without = 0

    def update(self, pair: Pair) -> None:
        """Turn from the frame before to this one."""
        points = self._look(pair)
        self._without += points is None
        # Fitting every frame to the clip's mean shape gives the same figure (within 0.2 % on two real clips), but only
        # once all frames are seen.
        step = None if points is None or self._previous is None else rotation_between(self._previous, points)
        known = step is not None and self._step is not None
        self._trace.append(float(np.linalg.norm(step - self._step)) if known else None)
        self._previous, self._step = points, step

    def finish(self) -> list[Figure]:
        """Return the mean."""
        held = [value for value in self._trace if value is not None]
        reason = ("no camera" if self._viewmats is not None else "no face found") if self._without else ""
        return [
            Figure(
                "pose_jitter", "full", float(np.mean(held)) if held else None, len(held), self._without,
                reason or ("" if held else "needs three frames running"), tuple(self._trace),
            )
        ]  # fmt: skip

    def _look(self, pair: Pair) -> Float[np.ndarray, "N 3"] | None:
        if self._viewmats is not None:
            # A camera's axes turn as points would that stand around the origin.
            points = self._viewmats[pair.index, :3, :3].T if pair.index < len(self._viewmats) else None
        else:
            mesh = pair.picture.mesh
            points = None if mesh is None else mesh[RIGID] - mesh[RIGID].mean(0)
        return points if points is not None and np.isfinite(points).all() else None


def rotation_between(before: Float[np.ndarray, "N 3"], after: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "3"]:
    """Return the rotation vector, in degrees, that turns one set of centred points onto another best (Kabsch).

    Scale does not matter, so that with x, y and relative z of a picture in px it is a fit under weak perspective.
    """
    u, _, vt = np.linalg.svd(after.T @ before)
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return np.degrees(Rotation.from_matrix(u @ handed @ vt).as_rotvec())
