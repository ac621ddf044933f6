"""Sub-pixel poses: align every frame's skin to the clip's own mean texture.

Landmarks are found frame by frame and wander by a fraction of a pixel; skin does not. Points spread over the tracked
mesh carry the mean of what all frames show at them, and each frame's pose is refined until the frame agrees with that
(Gauss-Newton on image intensities; Baker and Matthews 2004). Points that speech and expression move weigh little, so
do points seen at a grazing angle. Pictures are band-passed, so that light which changes with the pose matters less.

Notation as in `bundle_adjustment`; S surface points. Camera axes are OpenGL's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import Delaunay

from data_utils.bundle_adjustment import FaceTrack
from data_utils.stage import Progress, no_progress
from gaussian_head.geometry.landmarks import RIGID
from gaussian_head.geometry.rotations import matrix_from_rotvec

POINTS = 3000
ROUNDS, STEPS = 2, 3
"""Times the mean texture is taken anew; Gauss-Newton steps a frame each time."""
STEADY_M = 0.0008
"""Points that move more than this (standard deviation over the clip) count little."""
NOISE = 8.0
"""Expected intensity difference (0..255) of well aligned frames; larger ones are down-weighted (Cauchy)."""
LANDMARK_PX = 0.5
"""Standard deviation, px at 512 px, of the prior that keeps poses near the landmarks' ones."""
SMOOTHING_FRAMES = 1.2
"""Standard deviation of the filter over time that corrections pass: what single frames claim is noise."""
TEXTURE_FRAMES = 300
"""The mean texture is taken from at most this many frames, evenly spaced."""


class _Surface:
    """Points on the mesh: barycentric positions, normals, and how steady they are."""

    def __init__(self, track: FaceTrack) -> None:
        rng = np.random.default_rng(0)
        shape = track.shape.double().numpy()[:468]
        faces = Delaunay(shape[:, :2]).simplices
        edges = shape[faces[:, 1:]] - shape[faces[:, :1]]
        cross = np.cross(edges[:, 0], edges[:, 1])
        cross *= np.sign(cross[:, 2:])  # outward: towards the camera of a frontal face
        areas = np.linalg.norm(cross, axis=1)
        chosen = rng.choice(len(faces), POINTS, p=areas / areas.sum())
        barycentric = rng.dirichlet(np.ones(3), POINTS)
        self.vertices, self.barycentric = faces[chosen], barycentric
        self.normals = cross[chosen] / areas[chosen, None]
        points = track.points().double().numpy()
        wander = points.std(0)[:468].max(1)
        self.steady = np.exp(-0.5 * ((wander[self.vertices] * barycentric).sum(1) / STEADY_M) ** 2)

    def at(self, landmarks: Float[ndarray, "L 3"]) -> Float[ndarray, "S 3"]:
        return (landmarks[self.vertices] * self.barycentric[..., None]).sum(1)


def align_to_texture(
    track: FaceTrack, picture: Callable[[int], ndarray], size: tuple[int, int], progress: Progress = no_progress
) -> tuple[FaceTrack, list[float]]:
    """Refine the poses of a track.

    Args:
        track: What the landmarks gave.
        picture: Frame number -> RGB uint8 [H, W, 3].
        size: Picture width and height in px.
        progress: Wraps the frames.

    Returns:
        The track with refined poses, and per round the mean absolute difference between frames and the mean texture
        (band-passed intensities, 0..255) before that round's steps.
    """
    surface = _Surface(track)
    shapes = track.points().double().numpy()
    rotations = track.rotations.double().numpy().copy()
    translations = track.translations.double().numpy().copy()
    lens = _Lens(track.focal_px, size)
    total = np.zeros((len(shapes), 6))
    sampled = np.unique(np.linspace(0, len(shapes) - 1, min(TEXTURE_FRAMES, len(shapes))).round().astype(int)).tolist()
    residuals = []
    for turn in range(ROUNDS):
        weight, mean = np.zeros(POINTS), np.zeros(POINTS)
        for k in sampled:
            points = surface.at(shapes[k]) @ rotations[k].T
            seen = _facing(surface, rotations[k], points + translations[k])
            values = _sample(_band_pass(picture(k), size), lens.project(points + translations[k])[0])[0]
            mean += seen * values
            weight += seen
        texture = mean / np.maximum(weight, 1e-6)
        errors = []
        for k in progress(range(len(shapes)), len(shapes), f"tracking: texture {turn + 1}/{ROUNDS}"):
            layers = _band_pass(picture(k), size)
            points = surface.at(shapes[k])
            for step in range(STEPS):
                rotated = points @ rotations[k].T
                camera = rotated + translations[k]
                weights = _facing(surface, rotations[k], camera) * surface.steady
                delta, error = _gauss_newton(layers, texture, rotated, camera, weights, lens, total[k], shapes[k],
                                             rotations[k], translations[k])  # fmt: skip
                if step == 0:
                    errors.append(error)
                total[k] += delta
                turned = matrix_from_rotvec(torch.from_numpy(delta[:3])).numpy()
                rotations[k] = turned @ rotations[k]
                translations[k] += delta[3:]
        residuals.append(round(float(np.mean(errors)), 3))
    correction = torch.from_numpy(gaussian_filter1d(total, SMOOTHING_FRAMES, axis=0, mode="nearest"))
    correction = correction.to(track.rotations)
    refined = replace(
        track,
        rotations=matrix_from_rotvec(correction[:, :3]) @ track.rotations,
        translations=track.translations + correction[:, 3:],
    )
    return refined, residuals


class _Lens:
    """Pinhole projection (OpenGL camera axes) with its derivative."""

    def __init__(self, focal_px: float, size: tuple[int, int]) -> None:
        self.focal_px = focal_px
        self.center = np.array(size) / 2
        self.unit = size[0] / 512

    def project(self, camera: Float[ndarray, "S 3"]) -> tuple[Float[ndarray, "S 2"], Float[ndarray, "S 2 3"]]:
        x, y, z = camera.T
        f = self.focal_px
        zero = np.zeros_like(x)
        derivative = np.stack([np.stack([-f / z, zero, f * x / z**2], 1), np.stack([zero, f / z, -f * y / z**2], 1)], 1)
        return self.center + np.stack([-f * x / z, f * y / z], 1), derivative


def _band_pass(rgb: ndarray, size: tuple[int, int]) -> Float[ndarray, "H W 3"]:
    """Return the band-passed intensity and its x and y derivatives."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    unit = size[0] / 512
    fine = cv2.GaussianBlur(gray, (0, 0), 1.2 * unit)
    coarse = cv2.resize(fine, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 4 * unit), (gray.shape[1], gray.shape[0]))
    band = fine - coarse
    return np.dstack([band, cv2.Scharr(band, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(band, cv2.CV_32F, 0, 1) / 32])


def _sample(layers: Float[ndarray, "H W 3"], pixels: Float[ndarray, "S 2"]) -> Float[ndarray, "3 S"]:
    at = (pixels - 0.5).astype(np.float32)  # OpenCV puts pixel centres at integers
    return cv2.remap(layers, at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].T


def _facing(surface: _Surface, rotation: Float[ndarray, "3 3"], camera: Float[ndarray, "S 3"]) -> Float[ndarray, " S"]:
    """Weight points by how squarely they face the camera: 0 beyond about 75 degrees, 1 within 45."""
    towards = -camera / np.linalg.norm(camera, axis=1, keepdims=True)
    cosine = (surface.normals @ rotation.T * towards).sum(1)
    return np.clip((cosine - 0.25) / 0.45, 0, 1)


def _gauss_newton(
    layers: ndarray, texture: Float[ndarray, " S"], rotated: Float[ndarray, "S 3"], camera: Float[ndarray, "S 3"],
    weights: Float[ndarray, " S"], lens: _Lens, total: Float[ndarray, "6"], shape: Float[ndarray, "L 3"],
    rotation: Float[ndarray, "3 3"], translation: Float[ndarray, "3"],
) -> tuple[Float[ndarray, "6"], float]:  # fmt: skip
    """One step of the pose (rotation vector about the head's origin, then translation); and the mean residual."""
    pixels, derivative = lens.project(camera)
    values, gx, gy = _sample(layers, pixels)
    residual = texture - values
    gain = (weights * values * texture).sum() / max((weights * values * values).sum(), 1e-6)
    residual = texture - np.clip(gain, 0.7, 1.4) * values
    slope = gx[:, None] * derivative[:, 0] + gy[:, None] * derivative[:, 1]
    jacobian = np.concatenate([np.cross(rotated, slope), slope], 1)
    robust = weights / (1 + (residual / NOISE) ** 2) / NOISE**2
    information = jacobian.T @ (robust[:, None] * jacobian)
    target = jacobian.T @ (robust * residual)
    # The landmarks' own information about the pose, as a prior around where they put it.
    anchors = shape[RIGID] @ rotation.T
    _, flow = lens.project(anchors + translation)
    prior = np.concatenate([np.cross(anchors[:, None], flow), flow], 2).reshape(-1, 6)
    prior = prior.T @ prior / (LANDMARK_PX * lens.unit) ** 2
    delta = np.linalg.solve(information + prior, target - prior @ total)
    return delta, float((weights * np.abs(residual)).sum() / max(weights.sum(), 1e-6))
