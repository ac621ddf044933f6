"""Stage `hair`: how the hair moves against the skull, as a few hundred points that carry it.

A head is tracked by its face; hair swings, and long hair lies on the shoulders. Each frame is warped onto a plane
through the head, which takes most of the head's own motion out. Optical flow then follows cells of hair from one
reference frame to every other, in small steps through frames of similar pose. Where a cell's rays meet best is its
place in the head, and what remains is its motion: `hair3d.npy` [frames, G, 3] in the head frame, metres, just as
`lm3d.npy` gives the face's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d

from data_utils.matting import read_coverage
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
STEP_POWER = 1.2
"""Cost of a step between two poses, as a power of their distance: above 1, several small steps beat a large one."""
PLANE_WEIGHT = 1e-3
"""Pull of a cell's rest towards the plane; it decides where the head hardly turns."""
DEEPEST_M = 0.08
"""No cell rests farther from the plane than this."""
SMOOTHING_FRAMES = 0.8
BACKGROUND_GRAY = 128
LARGEST_M = 0.03
"""Longer displacements are taken for errors of the flow and cut to this length."""


def track_hair(
    layout: SubjectLayout, progress: Progress = no_progress, track: dict[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Track the hair through the clip and write `hair3d.npy` (no points, where there is no hair).

    Args:
        layout: The subject folder.
        progress: Wraps the loop.
        track: euler [T, 3] rad, trans [T, 3] dm and focal [1] px of all frames; default: those of `track_params.pt`.

    Returns:
        Facts for the manifest: number of points, and their typical displacement in mm.
    """
    track = torch.load(layout.track_params, weights_only=True) if track is None else track
    oval = np.load(layout.landmarks_3d)[:, FACE_OVAL].mean((0, 1))
    plane = _Plane(track, float(oval[2]) - PLANE_BEHIND_FACE_M, read_rgb(layout.frame(0)).shape[:2])
    reference = plane.most_frontal()
    _, hair = plane.unfold(layout, reference)
    cells = _cells_of_hair(hair)
    points = _lift(plane, _follow(layout, plane, reference, hair, cells, progress))
    with replacing(layout.hair_3d) as path:
        np.save(path, points.astype(np.float32))
    spread = 1e3 * float(np.linalg.norm(points - points.mean(0), axis=-1).mean()) if len(cells) else 0.0
    return {"points": len(cells), "reference_frame": reference, "displacement_mm": round(spread, 2)}


def _follow(
    layout: SubjectLayout,
    plane: _Plane,
    reference: int,
    hair: Bool[ndarray, "H W"],
    cells: Int[ndarray, "G 2"],
    progress: Progress,
) -> Float[ndarray, "T G 2"]:
    """Follow the cells through the clip; return where they are on the plane, px (x, y)."""
    frames = len(plane.rotations)
    pictures: dict[int, ndarray] = {}
    found = np.zeros((frames, len(cells), 2))
    insides = [_inside(hair, cell) for cell in cells]
    flow_finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for k, parent in progress(plane.steps_from(reference), frames, "hair"):
        pictures[k], _ = plane.unfold(layout, k)
        if parent is None:
            continue
        flow = flow_finder.calc(pictures[parent], pictures[k], None)
        found[k] = found[parent] + _cell_medians(flow, insides, found[parent])
    return found + (cells[:, ::-1] + 0.5) * CELL


def _lift(plane: _Plane, pixels: Float[ndarray, "T G 2"]) -> Float[ndarray, "T G 3"]:
    """Turn tracks on the plane into points of the head frame, metres.

    A cell's rest is where the rays through it come nearest to each other, in the least-squares sense; its place in a
    frame is the point of that frame's ray nearest to the rest, smoothed in time.
    """
    centers = -np.einsum("tij,ti->tj", plane.rotations, plane.translations)
    on_plane = plane.place(pixels)
    rays = on_plane - centers[:, None]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]  # [T, G, 3, 3]: distances from the ray
    prior = np.median(on_plane, axis=0)
    normal = across.mean(0) + PLANE_WEIGHT * np.eye(3)
    toward = np.einsum("tgij,tj->gi", across, centers) / len(centers) + PLANE_WEIGHT * prior
    rest = np.linalg.solve(normal, toward[..., None])[..., 0]
    rest = prior + _shorten(rest - prior, DEEPEST_M)
    motion = -np.einsum("tgij,tgj->tgi", across, rest - centers[:, None])
    return rest + gaussian_filter1d(_shorten(motion, LARGEST_M), SMOOTHING_FRAMES, axis=0, mode="nearest")


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

    def steps_from(self, reference: int) -> Iterator[tuple[int, int | None]]:
        """Yield every frame with the frame that it is followed from: few steps, each to a similar pose (Dijkstra)."""
        pose = np.concatenate([self.rotations.reshape(len(self.rotations), 9), self.translations], 1)
        cost, parent = np.full(len(pose), np.inf), np.full(len(pose), reference)
        cost[reference], reached = 0.0, np.zeros(len(pose), bool)
        for _ in range(len(pose)):
            k = int(np.argmin(np.where(reached, np.inf, cost)))
            yield k, None if k == reference else int(parent[k])
            reached[k] = True
            through = cost[k] + np.linalg.norm(pose - pose[k], axis=1) ** STEP_POWER
            parent[through < cost], cost = k, np.minimum(cost, through)

    def place(self, pixels: Float[ndarray, "*T 2"]) -> Float[ndarray, "*T 3"]:
        """Turn plane pixels (x, y) into head-frame points, metres."""
        x, y = LEFT_M + pixels[..., 0] * PITCH_M, TOP_M - pixels[..., 1] * PITCH_M
        return np.stack([x, y, np.full_like(x, self.z)], -1)

    def unfold(self, layout: SubjectLayout, k: int) -> tuple[ndarray, Bool[ndarray, "H W"]]:
        """Warp frame k onto the plane: intensity with the background grey, and where hair is."""
        matte = read_coverage(layout, k).astype(np.float32)[..., None] / 255
        picture = np.rint(read_rgb(layout.frame(k)) * matte + BACKGROUND_GRAY * (1 - matte)).astype(np.uint8)
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
        unfolded = cv2.warpPerspective(gray, warp, size, flags=flags, borderValue=BACKGROUND_GRAY)
        return unfolded, cv2.warpPerspective(np.uint8(hair), warp, size, flags=flags) > 0


def _cells_of_hair(hair: Bool[ndarray, "H W"]) -> ndarray:
    """Return [G, 2] (row, column) of the cells with enough hair."""
    rows, columns = hair.shape[0] // CELL, hair.shape[1] // CELL
    blocks = hair[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).mean((1, 3))
    return np.argwhere(blocks > LEAST_HAIR)


def _inside(hair: Bool[ndarray, "H W"], cell: Int[ndarray, "2"]) -> Int[ndarray, "P 2"]:
    """Return the pixels (x, y) of a cell that are hair."""
    (row, column), window = CELL * cell, np.s_[:CELL]
    return np.argwhere(hair[row:, column:][window, window])[:, ::-1] + (column, row)


def _cell_medians(
    flow: Float[ndarray, "H W 2"], insides: list[ndarray], moved: Float[ndarray, "G 2"]
) -> Float[ndarray, "G 2"]:
    """Median flow of each cell's pixels where they have `moved` to, in plane pixels."""
    medians = np.zeros_like(moved)
    limit = np.array(flow.shape[1::-1]) - 1
    for i, pixels in enumerate(insides):
        x, y = np.clip(np.rint(pixels + moved[i]).astype(int), 0, limit).T
        medians[i] = np.median(flow[y, x], axis=0)
    return medians


def _shorten(vectors: Float[ndarray, "*T 3"], longest: float) -> Float[ndarray, "*T 3"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * np.minimum(1, longest / np.maximum(length, 1e-9))
