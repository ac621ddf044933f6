"""Stage `tracking`: mesh landmarks -> head poses, one focal length, pose-free 3D landmarks, train and val cameras."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_utils.bundle_adjustment import PRIOR_FOCAL, adjust_bundle, fit_expressions
from data_utils.face_track import FaceTrack
from data_utils.photometric_alignment import align_to_texture
from data_utils.skin_points import stillness
from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.geometry.rotations import euler_from_matrix
from gaussian_head.media.files import replacing, write_bytes
from gaussian_head.media.image import read_rgb

TRAIN_SHARE = (10, 11)
"""The first 10/11 of the frames train, the rest validate (specs/gaussian_head.md a.1)."""
DECIMETRES_PER_METRE = 10.0
FIELD_IDENTITY, FIELD_EXPRESSION = 100, 79
"""Coefficient counts of the field's `track_params.pt`; ours are zero-padded to them."""


def track_head(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Track the head through the clip and write cameras and landmarks.

    Writes `track_params.pt`, `transforms_{train,val}.json`, `lm3d.npy` and `lm3d_valid.npy`.

    Returns:
        Facts for the manifest: focal length, mean reprojection error (px) and jitter, which is the mean length of the
        second difference of the pose (degrees, millimetres), of frame-by-frame alignment and of the result.
    """
    return _track(layout, progress)


def track_head_from_task(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Track likewise, starting from the poses of MediaPipe's face landmarker.

    Raises:
        FileNotFoundError: The landmarks were not made by the task.
        UserError: Its file is damaged.
    """
    from data_utils.face_task import read_face_task, turns_for_focal

    height, width = read_rgb(layout.frame(0)).shape[:2]
    turns = turns_for_focal(read_face_task(layout), height, PRIOR_FOCAL * width)
    return {"tracker": "task", **_track(layout, progress, turns)}


def _track(
    layout: SubjectLayout, progress: Progress, turns: Float[np.ndarray, "T 3 3"] | None = None
) -> dict[str, Any]:
    landmarks = np.load(layout.mesh_landmarks)
    height, width = read_rgb(layout.frame(0)).shape[:2]
    valid = np.isfinite(landmarks).all(axis=(1, 2))
    size = (width, height)
    track, start = adjust_bundle(landmarks, size, progress, turns)
    track, texture_error = align_to_texture(track, lambda k: read_rgb(layout.frame(k)), size, progress)
    track = fit_expressions(track, landmarks, size, stillness(track), progress)
    write_track(layout, track, valid, size)
    center = track.translations.new_tensor([width / 2, height / 2])
    error = np.linalg.norm(track.project(center).numpy() - landmarks[..., :2], axis=-1)[valid]
    return {
        "frames": len(landmarks),
        "invalid_frames": np.flatnonzero(~valid).tolist(),
        "focal_px": round(track.focal_px, 2),
        "reprojection_error_px": round(float(error.mean()), 4),
        "texture_error": texture_error,
        "jitter_before": jitter(start),
        "jitter_after": jitter(track),
    }


def jitter(track: FaceTrack) -> dict[str, float]:
    """Measure how poses tremble: the mean length of their second difference, degrees and millimetres."""
    turning = euler_from_matrix(track.rotations).diff(n=2, dim=0).norm(dim=1).mean()
    moving = track.translations.diff(n=2, dim=0).norm(dim=1).mean()
    return {"rotation_deg": round(float(turning.rad2deg()), 4), "translation_mm": round(float(moving) * 1e3, 4)}


def write_track(
    layout: SubjectLayout,
    track: FaceTrack,
    valid: Bool[np.ndarray, "T"],
    size: tuple[int, int],
    identity: Float[Tensor, "1 I"] | None = None,
    expression: Float[Tensor, "T E"] | None = None,
) -> None:
    """Write the stage's files.

    Args:
        layout: The subject folder.
        track: Poses, and the 478 landmarks with their own expressions.
        valid: Frames in which a face was seen; the others get no camera.
        size: Picture width and height in px.
        identity: A morphable model's coefficients; without them zeros, and the track's own expressions, are written.
        expression: Likewise.
    """
    frames, (width, height) = len(valid), size
    params = {
        "id": _padded(identity if identity is not None else torch.zeros(1, 0), FIELD_IDENTITY),
        "exp": _padded(expression if expression is not None else track.coefficients, FIELD_EXPRESSION),
        "euler": euler_from_matrix(track.rotations),
        "trans": track.translations * DECIMETRES_PER_METRE,
        "focal": torch.tensor([track.focal_px]),
    }
    with replacing(layout.track_params) as path:
        torch.save(params, path)  # plain tensors only: it loads with weights_only=True
    with replacing(layout.landmarks_3d) as path:
        np.save(path, track.points().float().numpy())
    with replacing(layout.landmarks_3d_valid) as path:
        np.save(path, valid)
    c2w = _camera_to_world(track)
    split = frames * TRAIN_SHARE[0] // TRAIN_SHARE[1]
    for name, members in (("train", range(split)), ("val", range(split, frames))):
        document = {
            "focal_len": track.focal_px,
            "cx": width / 2,
            "cy": height / 2,
            "fps": VIDEO_FPS,
            "frames": [{"img_id": k, "aud_id": k, "transform_matrix": c2w[k].tolist()} for k in members if valid[k]],
        }
        write_bytes(layout.transforms(name), json.dumps(document).encode())


def _padded(coefficients: Float[Tensor, "T K"], width: int) -> Float[Tensor, "T W"]:
    padded = torch.zeros(len(coefficients), width)
    padded[:, : coefficients.shape[1]] = coefficients
    return padded


def _camera_to_world(track: FaceTrack) -> Float[np.ndarray, "T 4 4"]:
    """Invert X_c = R X + t: c2w = [R^T | -R^T t], OpenGL axes."""
    rotations = track.rotations.double().numpy()
    c2w = np.tile(np.eye(4), (len(rotations), 1, 1))
    c2w[:, :3, :3] = rotations.transpose(0, 2, 1)
    c2w[:, :3, 3] = -np.einsum("tji,tj->ti", rotations, track.translations.double().numpy())
    return c2w
