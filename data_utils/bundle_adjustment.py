"""Bundle adjustment of a whole clip's face landmarks: one focal length, one face, a pose and an expression a frame.

No morphable-model file is needed: the face's shape and its expression space are learned from the clip itself.
Notation as in `face_track`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data_utils.expressions import expression_basis, project_on_basis, relearn_expressions
from data_utils.face_track import FaceTrack, align_shapes, combine, project, rigid_weights
from data_utils.stage import Progress, no_progress
from gaussian_head.geometry.landmarks import FACE_OVAL, RIGID
from gaussian_head.geometry.rotations import matrix_from_rotvec

FACE_WIDTH_M = 0.14
"""Distance between the two ear-side points of the oval (234, 454): it sets the metre, which no video can know."""
SHARED_FRAMES = 100
"""Shape, focal length and expression space are learned from at most this many frames, evenly spaced."""
PRIOR_FOCAL = 2.4
"""Expected focal length in picture widths (a portrait lens); the fit may leave it."""


def procrustes_mean(points: Float[Tensor, "T L 3"], weights: Float[Tensor, "L"]) -> Float[Tensor, "L 3"]:
    """Average the frames' shapes after alignment; frontal, centred, FACE_WIDTH_M wide."""
    mean = points[0]
    for _ in range(6):
        scale, rotation, offset = align_shapes(points, mean, weights)
        mean = (((points - offset[:, None]) @ rotation) / scale[:, None, None]).mean(0)
    x_axis = torch.nn.functional.normalize(mean[454] - mean[234], dim=0)
    y_axis = mean[10] - mean[152]
    y_axis = torch.nn.functional.normalize(y_axis - (y_axis @ x_axis) * x_axis, dim=0)
    frame = torch.stack([x_axis, y_axis, torch.linalg.cross(x_axis, y_axis)])
    mean = (mean - mean[FACE_OVAL].mean(0)) @ frame.T
    return mean * (FACE_WIDTH_M / (mean[454] - mean[234]).norm())


def _second_difference(x: Float[Tensor, "T D"]) -> Float[Tensor, "U D"]:
    return x[2:] - 2 * x[1:-1] + x[:-2]


def _gentle(x: Tensor) -> Tensor:
    """Square of small values, proportional to large ones: a cut or a jerk of the head is not smeared over time."""
    return 2 * (torch.sqrt(1 + x.square()) - 1)


class _Problem:
    """The unknowns of one bundle adjustment and its loss, in pixels."""

    def __init__(
        self, landmarks: Float[Tensor, "T L 3"], valid: Bool[Tensor, "T"], size: tuple[int, int], track: FaceTrack
    ) -> None:
        self.observed, self.valid = landmarks[..., :2], valid
        self.width = size[0]
        self.center = landmarks.new_tensor([size[0] / 2, size[1] / 2])
        self.track = track
        frames = len(landmarks)
        self.log_focal = torch.tensor(np.log(track.focal_px), dtype=landmarks.dtype)
        self.shape_offset = torch.zeros_like(track.shape)
        self.rotvecs = torch.zeros(frames, 3, dtype=landmarks.dtype)
        self.translations = track.translations.clone()
        self.coefficients = track.coefficients.clone()
        self.spread = track.coefficients.square().mean(0).sqrt().clamp_min(1e-5)
        self.weights = torch.ones(landmarks.shape[1], dtype=landmarks.dtype)
        if len(track.basis) == 0:  # rigid: let the points that expressions hardly move decide
            self.weights = rigid_weights(landmarks.dtype)

    def current(self) -> FaceTrack:
        return FaceTrack(
            focal_px=float(self.log_focal.detach().exp()),
            shape=(self.track.shape + self.shape_offset).detach(),
            basis=self.track.basis,
            coefficients=self.coefficients.detach(),
            rotations=(matrix_from_rotvec(self.rotvecs) @ self.track.rotations).detach(),
            translations=self.translations.detach(),
        )

    def loss(self) -> Tensor:
        """Robust reprojection error, temporal smoothness, and priors on focal length, shape and expression."""
        rotations = matrix_from_rotvec(self.rotvecs) @ self.track.rotations
        shape = self.track.shape + self.shape_offset
        points = shape + combine(self.coefficients, self.track.basis)
        projected = project(points, rotations, self.translations, self.log_focal.exp(), self.center)
        unit = self.width / 512  # so that one set of weights serves every resolution
        error = ((projected - self.observed)[self.valid] / unit).norm(dim=-1)
        data = (self.weights * (torch.sqrt(1 + error**2) - 1)).mean()
        # One head-sized lever arm turns rotations (rad) and translations (m) into pixels of motion at the face's depth.
        depth = -self.track.translations[:, 2].mean()
        px_per_m = (self.log_focal.exp() / depth / unit).detach()
        turning = _second_difference(self._euler_like(rotations)) * 0.07 * px_per_m
        moving = _second_difference(self.translations) * px_per_m * self.translations.new_tensor([1.0, 1.0, 0.3])
        smooth = 0.3 * _gentle(turning).mean() + 0.1 * _gentle(moving).mean()
        prior = 0.05 * (self.log_focal - np.log(PRIOR_FOCAL * self.width)).square()
        prior = prior + 2e3 * self.shape_offset.square().mean()
        if len(self.track.basis):
            z = self.coefficients / self.spread
            rigid_shift = (points - shape)[:, RIGID].mean(1) * px_per_m
            prior = prior + 2e-3 * z.square().mean() + 0.1 * rigid_shift.square().mean()
            smooth = smooth + 2e-3 * _second_difference(z).square().mean()
        return data + smooth + prior

    def _euler_like(self, rotations: Float[Tensor, "T 3 3"]) -> Float[Tensor, "T 3"]:
        """Small-angle coordinates of each rotation relative to the clip's mean: differences of them are rotations."""
        relative = rotations @ rotations[len(rotations) // 2].detach().T
        return torch.stack([relative[:, 2, 1], relative[:, 0, 2], relative[:, 1, 0]], -1)


def _minimize(
    problem: _Problem, steps: int, *, shared: bool, label: str, progress: Progress, poses: bool = True
) -> FaceTrack:
    """Adam with a cosine schedule over expressions, and on request poses and what the frames share (focal, shape)."""
    depth = float(-problem.track.translations[:, 2].mean())
    groups = []
    if poses:
        groups += [{"params": [problem.rotvecs], "lr": 6e-3}, {"params": [problem.translations], "lr": 2e-3 * depth}]
    if len(problem.track.basis):
        groups.append({"params": [problem.coefficients], "lr": 0.03 * float(problem.spread.max())})
    if shared:
        groups += [{"params": [problem.log_focal], "lr": 1e-2}, {"params": [problem.shape_offset], "lr": 2e-4}]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps), steps, f"tracking: {label}"):
        optimizer.zero_grad()
        problem.loss().backward()
        optimizer.step()
        schedule.step()
    return problem.current()


def initial_track(
    points: Float[Tensor, "T L 3"],
    size: tuple[int, int],
    shape: Tensor,
    focal_px: float,
    turns: Float[Tensor, "T 3 3"] | None = None,
) -> FaceTrack:
    """Turn per-frame similarities (weak perspective) into camera poses for a given focal length.

    With `turns` (see `adjust_bundle`) the rotations are those, in the head frame of `shape`.
    """
    weights = rigid_weights(points.dtype)
    scale, rotation, offset = align_shapes(points, shape, weights)
    if turns is not None:
        u, _, vh = torch.linalg.svd((rotation.mT @ turns).sum(0))  # their head frame as ours sees it
        scale, rotation, offset = align_shapes(points, shape, weights, turns @ (u @ vh).T)
    depth = focal_px / scale
    center = points.new_tensor([size[0] / 2, -size[1] / 2])
    xy = (offset[:, :2] - center) * (depth / focal_px)[:, None]
    translations = torch.cat([xy, -depth[:, None]], 1)
    empty = points.new_zeros(0, len(shape), 3)
    return FaceTrack(focal_px, shape, empty, points.new_zeros(len(points), 0), rotation, translations)


def adjust_bundle(
    landmarks: Float[np.ndarray, "T L 3"],
    size: tuple[int, int],
    progress: Progress = no_progress,
    turns: Float[np.ndarray, "T 3 3"] | None = None,
) -> tuple[FaceTrack, FaceTrack]:
    """Track a clip from its mesh landmarks.

    Args:
        landmarks: MediaPipe's points: x, y in px and relative z in px (smaller is nearer); NaN where no face was found.
        size: Picture width and height in px.
        progress: Wraps the iterations.
        turns: Head to camera (OpenGL axes) to start from, of any head frame; default: what each frame's landmarks say.

    Returns:
        The adjusted track, and the initial per-frame track (each frame aligned alone), for comparison. Poses of frames
        without a face are interpolated by the smoothness terms.
    """
    torch.manual_seed(0)
    valid_np = np.isfinite(landmarks).all(axis=(1, 2))
    filled = _fill_gaps(landmarks, valid_np).astype(np.float32)
    observed, valid = torch.from_numpy(filled), torch.from_numpy(valid_np)
    points = observed * observed.new_tensor([1.0, -1.0, -1.0])  # picture axes -> camera axes

    keyframes = key_frames(valid_np)
    shape = procrustes_mean(points[keyframes], rigid_weights(points.dtype))
    turned = None if turns is None else torch.from_numpy(turns).to(points)
    start = initial_track(points, size, shape, PRIOR_FOCAL * size[0], turned)

    # Shared unknowns from the key frames: first rigidly, then with expressions.
    key = _select(start, keyframes)
    key_observed, key_valid = observed[keyframes], valid[keyframes]
    key = _minimize(_Problem(key_observed, key_valid, size, key), 100, shared=True, label="face", progress=progress)
    key.basis = expression_basis(points[keyframes], key, size)
    key.coefficients = project_on_basis(points[keyframes], key, size)
    problem = _Problem(key_observed, key_valid, size, key)
    key = _minimize(problem, 150, shared=True, label="expressions", progress=progress)

    # Then every frame's pose and expression, with the shared unknowns held.
    track = initial_track(points, size, key.shape, key.focal_px, turned)
    track.basis = key.basis
    track.coefficients = project_on_basis(points, track, size)
    problem = _Problem(observed, valid, size, track)
    return _minimize(problem, 200, shared=False, label="all frames", progress=progress), start


def fit_expressions(
    track: FaceTrack,
    landmarks: Float[np.ndarray, "T L 3"],
    size: tuple[int, int],
    still: Float[np.ndarray, "L"],
    progress: Progress = no_progress,
) -> FaceTrack:
    """Learn and fit the expressions again to the same landmarks, with the poses of `track` held.

    Args:
        track: Poses, focal length and depth to keep.
        landmarks: See `adjust_bundle`.
        size: Picture width and height in px.
        still: 0 where landmarks may move in the head frame .. 1 where they belong to the skull.
        progress: Wraps the iterations.
    """
    valid = np.isfinite(landmarks).all(axis=(1, 2))
    observed = torch.from_numpy(_fill_gaps(landmarks, valid).astype(np.float32))
    center = observed.new_tensor([size[0] / 2, size[1] / 2])
    held = torch.from_numpy(still).to(observed)
    track = relearn_expressions(track, observed[..., :2], center, held, key_frames(valid))
    problem = _Problem(observed, torch.from_numpy(valid), size, track)
    return _minimize(problem, 50, shared=False, poses=False, label="expressions again", progress=progress)


def key_frames(valid: Bool[np.ndarray, "T"]) -> Int[Tensor, " F"]:
    """Choose at most SHARED_FRAMES of the valid frames, evenly spaced."""
    found = torch.from_numpy(np.flatnonzero(valid))
    return found[torch.linspace(0, len(found) - 1, min(SHARED_FRAMES, len(found))).round().long()]


def _select(track: FaceTrack, frames: Tensor) -> FaceTrack:
    return FaceTrack(
        track.focal_px,
        track.shape,
        track.basis,
        track.coefficients[frames],
        track.rotations[frames],
        track.translations[frames],
    )


def _fill_gaps(landmarks: Float[np.ndarray, "T L 3"], valid: Bool[np.ndarray, "T"]) -> Float[np.ndarray, "T L 3"]:
    """Interpolate frames without a face linearly from their neighbours."""
    index = np.arange(len(landmarks))
    flat = landmarks.reshape(len(landmarks), -1).copy()
    known = index[valid]
    right = np.clip(np.searchsorted(known, index), 0, len(known) - 1)
    left = np.clip(right - 1, 0, len(known) - 1)
    span = np.maximum(known[right] - known[left], 1)
    mix = np.clip((index - known[left]) / span, 0, 1)[:, None]
    filled = (1 - mix) * flat[known[left]] + mix * flat[known[right]]
    return np.where(valid[:, None], flat, filled).reshape(landmarks.shape)
