"""Stage `hair`: how the hair moves against the skull, as a few dozen points that carry it.

A head is tracked by its face; hair swings, and long hair lies on the shoulders. Each frame is warped onto a plane
through the head (which takes the head's own motion out), and dense optical flow from one reference frame tells what
moved besides. Cells of a coarse grid that hold hair give points `hair3d.npy` [frames, G, 3] in the head frame, metres,
just as `lm3d.npy` gives the face's.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d

from data_utils.matting import read_matte
from data_utils.stage import Progress, no_progress
from gaussian_head.data import layout as names
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.geometry.cameras import intrinsics
from gaussian_head.geometry.landmarks import FACE_OVAL
from gaussian_head.geometry.rotations import matrix_from_euler
from gaussian_head.media.files import replacing
from gaussian_head.media.image import read_rgb

PLANE_BEHIND_FACE_M = 0.04
"""The plane stands this far behind the face's outline, about where hair is seen."""
LEFT_M, RIGHT_M, BOTTOM_M, TOP_M = -0.22, 0.22, -0.30, 0.20
PITCH_M = 0.0016
"""Size of a pixel on the plane."""
CELL = 7
"""Pixels per cell of the grid: about 11 mm."""
LEAST_HAIR = 0.15
"""Share of a cell that must be hair in the reference frame."""
SMOOTHING_FRAMES = 0.8
LARGEST_M = 0.03
"""Longer displacements are taken for errors of the flow and cut to this length."""


def track_hair(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Track the hair through the clip and write `hair3d.npy` (no points, where there is no hair).

    Returns:
        Facts for the manifest: number of points, and their typical displacement in mm.
    """
    track = torch.load(layout.track_params, weights_only=True)
    oval = np.load(layout.landmarks_3d)[:, FACE_OVAL].mean((0, 1))
    plane = _Plane(track, float(oval[2]) - PLANE_BEHIND_FACE_M, read_rgb(layout.frame(0)).shape[:2])
    frames = len(track["euler"])
    reference = plane.most_frontal()
    start, hair = plane.unfold(layout, reference)
    cells = _cells_of_hair(hair)
    flow_finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    displacement = np.zeros((frames, len(cells), 2))
    for k in progress(range(frames), frames, "hair"):
        picture, _ = plane.unfold(layout, k)
        flow = flow_finder.calc(start, picture, None)
        displacement[k] = _cell_medians(flow, hair, cells)
    displacement = _tame(displacement * PITCH_M)
    rest = plane.place((cells[:, ::-1] + 0.5) * CELL)
    points = np.repeat(rest[None], frames, axis=0)
    points[..., 0] += displacement[..., 0]
    points[..., 1] -= displacement[..., 1]
    with replacing(layout.hair_3d) as path:
        np.save(path, points.astype(np.float32))
    spread = 1e3 * float(displacement.std(0).mean()) if len(cells) else 0.0
    return {"points": len(cells), "reference_frame": reference, "displacement_mm": round(spread, 2)}


class _Plane:
    """A picture plane fixed to the head."""

    def __init__(self, track: dict[str, torch.Tensor], z: float, size: tuple[int, int]) -> None:
        self.rotations = matrix_from_euler(track["euler"]).double().numpy()
        self.translations = track["trans"].double().numpy() / 10  # decimetres on disk
        self.K = intrinsics(float(track["focal"]), size[1], size[0])
        self.z = z
        self.width = round((RIGHT_M - LEFT_M) / PITCH_M)
        self.height = round((TOP_M - BOTTOM_M) / PITCH_M)

    def most_frontal(self) -> int:
        """The frame whose pose is nearest to the clip's median."""
        pose = np.concatenate([self.rotations.reshape(len(self.rotations), 9), self.translations * 3], 1)
        return int(np.argmin(np.abs(pose - np.median(pose, axis=0)).sum(1)))

    def place(self, pixels: Float[ndarray, "G 2"]) -> Float[ndarray, "G 3"]:
        """Turn plane pixels (x, y) into head-frame points, metres."""
        x, y = LEFT_M + pixels[:, 0] * PITCH_M, TOP_M - pixels[:, 1] * PITCH_M
        return np.stack([x, y, np.full_like(x, self.z)], 1)

    def unfold(self, layout: SubjectLayout, k: int) -> tuple[ndarray, Bool[ndarray, "H W"]]:
        """Warp frame k onto the plane: intensity with the background grey, and where hair is."""
        matte = read_matte(layout.matte(k)).astype(np.float32)[..., None] / 255
        picture = np.rint(read_rgb(layout.frame(k)) * matte + 128 * (1 - matte)).astype(np.uint8)
        hair = (read_rgb(layout.parsing(k)) == np.array(names.PARSING_HAIR, np.uint8)).all(-1)
        to_camera = np.diag([1.0, -1.0, -1.0]) @ np.column_stack([
            self.rotations[k][:, 0], self.rotations[k][:, 1], self.rotations[k][:, 2] * self.z + self.translations[k],
        ])  # fmt: skip
        to_plane = np.array([[PITCH_M, 0, LEFT_M + PITCH_M / 2], [0, -PITCH_M, TOP_M - PITCH_M / 2], [0, 0, 1]])
        to_pixel_index = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])  # OpenCV puts pixel centres at integers
        warp = to_pixel_index @ self.K @ to_camera @ to_plane
        size = (self.width, self.height)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        unfolded = cv2.warpPerspective(gray, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return unfolded, cv2.warpPerspective(np.uint8(hair), warp, size, flags=flags) > 0


def _cells_of_hair(hair: Bool[ndarray, "H W"]) -> ndarray:
    """Return [G, 2] (row, column) of the cells with enough hair."""
    rows, columns = hair.shape[0] // CELL, hair.shape[1] // CELL
    blocks = hair[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).mean((1, 3))
    return np.argwhere(blocks > LEAST_HAIR)


def _cell_medians(flow: Float[ndarray, "H W 2"], hair: Bool[ndarray, "H W"], cells: ndarray) -> Float[ndarray, "G 2"]:
    """Median flow of each cell's hair, in plane pixels."""
    medians = np.zeros((len(cells), 2))
    for i, (row, column) in enumerate(cells):
        window = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        medians[i] = np.median(flow[window][hair[window]], axis=0)
    return medians


def _tame(displacement: Float[ndarray, "T G 2"]) -> Float[ndarray, "T G 2"]:
    """Smooth over time and limit the length (metres); subtract the mean, so that the clip's usual hair is at rest."""
    displacement = displacement - np.median(displacement, axis=0, keepdims=True)
    length = np.linalg.norm(displacement, axis=-1, keepdims=True)
    displacement = displacement * np.minimum(1, LARGEST_M / np.maximum(length, 1e-9))
    return gaussian_filter1d(displacement, SMOOTHING_FRAMES, axis=0, mode="nearest")
