"""Poses and depth from the skin's texture.

Landmarks are found picture by picture: they wander by a fraction of a pixel, they follow some turns of the head only in
part, and their depth is a guess. Skin does neither. Points spread over the steady parts of the tracked mesh each have
one intensity, unknown but the same in all frames. For key frames, their poses, the face's depth (a smooth correction)
and those intensities are found together (Gauss-Newton; the intensities, one a point, are eliminated); then every
frame's pose is refined against the found texture (Baker and Matthews 2004). Pictures are band-passed, so that light
which changes with the pose matters less.

Turning a little and being deep a little look much alike (the bas-relief ambiguity), and what errs (light, gloss,
expression) errs alike at many points: hence the priors, which are tighter than independent errors would ask for.

Notation as in `face_track`; S points, F key frames, D components of the depth correction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from data_utils.face_track import FaceTrack
from data_utils.skin_points import BandPass, Lens, SkinPoints, look, pose_jacobian
from data_utils.stage import Progress, no_progress
from gaussian_head.geometry.landmarks import RIGID

KEY_FRAMES = 60
"""Depth and texture are found in at most this many frames, evenly spaced."""
KEY_STEPS, STEPS = 8, 4
"""Gauss-Newton steps of the key frames together, then of each frame alone."""
LANDMARK_PX = 15.0
"""Standard deviation, px at 512 px, of the prior that keeps poses near the landmarks' ones."""
FOLLOW_PX = 6.0
"""Likewise, of the prior that keeps every frame near what the key frames say about its pose."""
RELIEF, BULGE_M, BULGE_WIDTH_M = 0.1, 0.0015, 0.04
"""Standard deviations of the depth's scale and of smooth bulges of this width beside it."""
DEPTH_COMPONENTS = 16
SMOOTHING_FRAMES = 2.0
"""Standard deviation of the filter over time that corrections pass: what single frames claim is noise."""


@dataclass
class _Poses:
    """Poses under refinement: rotations, translations, and the sum of their steps (rotation vector, translation)."""

    rotations: Float[ndarray, "F 3 3"]
    translations: Float[ndarray, "F 3"]
    steps: Float[ndarray, "F 6"]

    def move(self, steps: Float[ndarray, "F 6"]) -> None:
        self.steps = self.steps + steps
        self.rotations = Rotation.from_rotvec(steps[:, :3]).as_matrix() @ self.rotations
        self.translations = self.translations + steps[:, 3:]


def align_to_texture(
    track: FaceTrack, picture: Callable[[int], ndarray], size: tuple[int, int], progress: Progress = no_progress
) -> tuple[FaceTrack, list[float]]:
    """Refine the poses of a track and the depth of its face.

    Args:
        track: What the landmarks gave.
        picture: Frame number -> RGB uint8 [H, W, 3].
        size: Picture width and height in px.
        progress: Wraps the frames.

    Returns:
        The track with refined poses and shape, and the mean absolute difference between key frames and texture
        (band-passed intensities, 0..255) before and after.
    """
    frames = len(track.rotations)
    skin, lens = SkinPoints(track), Lens(track.focal_px, size)
    start = _Poses(track.rotations.double().numpy(), track.translations.double().numpy(), np.zeros((frames, 6)))

    def filtered(k: int) -> BandPass:
        pixels = lens.project(skin.places @ start.rotations[k].T + start.translations[k])[0]
        return BandPass(picture(k), pixels, lens.unit)

    keys = np.unique(np.linspace(0, frames - 1, min(KEY_FRAMES, frames)).round().astype(int))
    key = _Poses(start.rotations[keys], start.translations[keys], np.zeros((len(keys), 6)))
    total = len(keys)
    pictures = [filtered(k) for k in progress(keys.tolist(), total, "tracking: key frames")]
    bulge, texture, errors = _solve_key_frames(skin, key, pictures, lens)

    places = skin.places + skin.at(bulge)
    guess = _extrapolate(start.rotations, keys, key.steps)
    steps = np.empty((frames, 6))
    for k in progress(range(frames), frames, "tracking: texture"):
        pose = _Poses(start.rotations[k : k + 1], start.translations[k : k + 1], np.zeros((1, 6)))
        pose.move(guess[k : k + 1])
        shown = filtered(k)
        for _ in range(STEPS):
            rotation, translation = pose.rotations[0], pose.translations[0]
            sighting = look(skin, places, rotation, translation, shown, lens)
            residual, slopes, weights = sighting.compare(texture)
            jacobian = pose_jacobian(sighting.rotated, slopes)
            prior = _landmark_information(skin.landmarks, rotation, translation, lens) / FOLLOW_PX**2
            information = jacobian.T @ (weights[:, None] * jacobian) + prior
            target = jacobian.T @ (weights * residual) + prior @ (guess[k] - pose.steps[0])
            pose.move(np.linalg.solve(information, target)[None])
        steps[k] = pose.steps[0]
    steps = gaussian_filter1d(steps, SMOOTHING_FRAMES, axis=0, mode="nearest")
    rotations = Rotation.from_rotvec(steps[:, :3]).as_matrix() @ start.rotations
    refined = replace(
        track,
        shape=track.shape + torch.from_numpy(bulge).to(track.shape),
        rotations=torch.from_numpy(rotations).to(track.rotations),
        translations=torch.from_numpy(start.translations + steps[:, 3:]).to(track.translations),
    )
    return refined, errors


def _solve_key_frames(
    skin: SkinPoints, key: _Poses, pictures: list[BandPass], lens: Lens
) -> tuple[Float[ndarray, "L 3"], Float[ndarray, " S"], list[float]]:
    """Move the key frames' poses in place; return the landmarks' correction (m), the texture, mean residuals."""
    inward = np.einsum("fji,fj->fi", key.rotations, key.translations).mean(0)
    towards = -inward / np.linalg.norm(inward)  # from the head to the camera, as a rule: depth is what is along it
    modes = _depth_modes(skin.landmarks)
    at_points = skin.at(modes)
    depth = np.zeros(DEPTH_COMPONENTS)
    poses, errors = 6 * len(pictures), []
    for _ in range(KEY_STEPS):
        places = skin.places + np.outer(at_points @ depth, towards)
        views = list(zip(key.rotations, key.translations, pictures, strict=True))
        sightings = [look(skin, places, rotation, translation, shown, lens) for rotation, translation, shown in views]
        seen = sum(sighting.weights for sighting in sightings)
        texture = sum(sighting.weights * sighting.values for sighting in sightings) / np.maximum(seen, 1e-6)
        # Normal equations of all poses and the depth, and how they meet the texture's: cross [.., S], own [S].
        normal = np.diag(np.r_[np.zeros(poses), np.ones(DEPTH_COMPONENTS)])
        target = np.r_[np.zeros(poses), -depth]
        cross, own, claim = np.zeros((len(target), len(texture))), np.full(len(texture), 1e-6), np.zeros(len(texture))
        difference = 0.0
        for f, sighting in enumerate(sightings):
            rotation, translation, _ = views[f]
            residual, slopes, weights = sighting.compare(texture)
            along = (slopes @ (rotation @ towards))[:, None] * at_points
            jacobian = np.concatenate([pose_jacobian(sighting.rotated, slopes), along], 1)
            weighted = weights[:, None] * jacobian
            pose = np.arange(6 * f, 6 * f + 6)
            rows = np.r_[pose, poses : len(target)]
            normal[np.ix_(rows, rows)] += jacobian.T @ weighted
            target[rows] += weighted.T @ residual
            cross[rows] += weighted.T
            own += weights
            claim += weights * residual
            prior = _landmark_information(skin.landmarks, rotation, translation, lens) / LANDMARK_PX**2
            normal[np.ix_(pose, pose)] += prior
            target[pose] -= prior @ key.steps[f]
            total = max(sighting.weights.sum(), 1e-6)
            difference += (sighting.weights * np.abs(residual)).sum() / total / len(sightings)
        step = np.linalg.solve(normal - (cross / own) @ cross.T, target - cross @ (claim / own))
        key.move(step[:poses].reshape(-1, 6))
        depth = depth + step[poses:]
        errors.append(round(float(difference), 3))
    return np.outer(modes @ depth, towards), texture, [errors[0], errors[-1]]


def _depth_modes(landmarks: Float[ndarray, "L 3"]) -> Float[ndarray, "L D"]:
    """Principal components (m, of unit variance) of what the depth's correction may be: a Gaussian process."""
    distance = np.linalg.norm(landmarks[:, None, :2] - landmarks[None, :, :2], axis=-1)
    relief = landmarks[:, 2] - landmarks[:, 2].mean()
    covariance = BULGE_M**2 * np.exp(-0.5 * (distance / BULGE_WIDTH_M) ** 2) + RELIEF**2 * np.outer(relief, relief)
    values, vectors = np.linalg.eigh(covariance)
    return vectors[:, -DEPTH_COMPONENTS:] * np.sqrt(values[-DEPTH_COMPONENTS:])


def _extrapolate(
    rotations: Float[ndarray, "T 3 3"], keys: Int[ndarray, " F"], steps: Float[ndarray, "F 6"]
) -> Float[ndarray, "T 6"]:
    """Guess every frame's correction from those of the key frames: linear in the turn of the head."""
    turns = Rotation.from_matrix(rotations)
    pose = np.column_stack([np.ones(len(rotations)), (turns * turns.mean().inv()).as_rotvec()])
    return pose @ np.linalg.lstsq(pose[keys], steps, rcond=None)[0]


def _landmark_information(
    landmarks: Float[ndarray, "L 3"], rotation: Float[ndarray, "3 3"], translation: Float[ndarray, "3"], lens: Lens
) -> Float[ndarray, "6 6"]:
    """Return what the landmarks' places in the picture tell about the pose: a prior around where they put it."""
    anchors = landmarks[RIGID] @ rotation.T
    _, flow = lens.project(anchors + translation)
    jacobian = np.concatenate([pose_jacobian(anchors, flow[:, axis]) for axis in (0, 1)])
    return jacobian.T @ jacobian / lens.unit**2
