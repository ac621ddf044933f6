"""Pinhole cameras and the project's coordinate frames (declared once, here).

* World: head-fixed, metres, x to the right of the picture, y up, z out of the face. The head stands still; its
  motion is the camera's.
* On disk a camera is `c2w`, camera-to-world with OpenGL axes (x right, y up, z backward).
* In code a camera is `viewmat`, world-to-camera with OpenCV axes (x right, y down, z forward), and `K` in pixels.
* The centre of pixel (column j, row i) is (j + 0.5, i + 0.5), so the principal point of a centred camera is (W/2, H/2).

Works on numpy arrays and on torch tensors alike where it only multiplies and indexes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Flips y and z: OpenGL camera axes <-> OpenCV camera axes (its own inverse)."""


@dataclass(frozen=True)
class Camera:
    """One pinhole camera: `viewmat` [4, 4] world-to-camera (OpenCV axes), `K` [3, 3] px, picture size in px."""

    viewmat: Float[ndarray, "4 4"]
    K: Float[ndarray, "3 3"]
    width: int
    height: int

    def resized(self, width: int, height: int) -> Camera:
        """Return the same view on a `width` x `height` pixel grid."""
        return replace(
            self, K=scale_intrinsics(self.K, width / self.width, height / self.height), width=width, height=height
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """Return the camera that sees only the box starting at (left, top) px."""
        K = self.K.copy()
        K[0, 2] -= left
        K[1, 2] -= top
        return replace(self, K=K, width=width, height=height)


def intrinsics(focal_px: float, width: int, height: int) -> Float[ndarray, "3 3"]:
    """Return K of a square-pixel camera whose principal point is the picture's centre."""
    return np.array([[focal_px, 0.0, width / 2], [0.0, focal_px, height / 2], [0.0, 0.0, 1.0]])


def scale_intrinsics(K: Float[ndarray, "3 3"], scale_x: float, scale_y: float) -> Float[ndarray, "3 3"]:
    """Return K for a picture resized by the given factors (pixel centres at integers + 0.5, so a plain scaling)."""
    return np.diag([scale_x, scale_y, 1.0]) @ K


def viewmat_from_c2w(c2w: Float[ndarray, "*T 4 4"]) -> Float[ndarray, "*T 4 4"]:
    """Turn camera-to-world matrices with OpenGL axes (disk) into world-to-camera with OpenCV axes (code)."""
    return GL_TO_CV @ np.linalg.inv(c2w)


def c2w_from_viewmat(viewmat: Float[ndarray, "*T 4 4"]) -> Float[ndarray, "*T 4 4"]:
    """Inverse of `viewmat_from_c2w`."""
    return np.linalg.inv(GL_TO_CV @ viewmat)


def project(
    points: Float[ndarray, "*T N 3"], viewmat: Float[ndarray, "*T 4 4"], K: Float[ndarray, "3 3"]
) -> tuple[Float[ndarray, "*T N 2"], Float[ndarray, "*T N"]]:
    """Project world points (metres).

    Returns:
        Pixel positions (x, y) and the camera-space depth in metres (positive in front).
    """
    camera = points @ np.swapaxes(viewmat[..., :3, :3], -1, -2) + viewmat[..., None, :3, 3]
    homogeneous = camera @ K.T
    return homogeneous[..., :2] / homogeneous[..., 2:], camera[..., 2]
