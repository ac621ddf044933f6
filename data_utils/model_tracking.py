"""Stage `tracking` by a morphable face model: what the built-in tracker writes, and the model's coefficients.

The cameras are those of the model's head frame (origin at the face's centroid, specs/gaussian_head.md c). The 478 mesh
landmarks are laid onto the model's surface, and their expressions are then found as the built-in tracker finds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from data_utils.bundle_adjustment import fit_expressions
from data_utils.expressions import relearn_expressions
from data_utils.face_track import FaceTrack
from data_utils.head_frame import fill_missing
from data_utils.model_fit import ModelTrack, drawn_size, fit_landmarks, fit_pictures, project_landmarks, render
from data_utils.skin_points import stillness
from data_utils.stage import Progress, no_progress
from data_utils.tracking import DECIMETRES_PER_METRE, jitter, write_track
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.face_model import FaceModel
from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import read_rgb, resize
from gaussian_head.networks.bfm import load_face_model

DEPTH_FRAMES = 40
"""Frames from which the mesh landmarks' places on the model are taken, evenly spaced."""
DOUBTFUL = 3.0
"""A frame whose landmarks are this many times as far off as usual is named in the manifest."""


def track_head_by_model(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Track the head through the clip by the face model in the table of weights.

    Writes the files of `tracking.track_head`; `id` and `exp` of `track_params.pt` are the model's coefficients.

    Returns:
        Facts for the manifest, as those of `tracking.track_head`, and the frames whose landmarks fit badly.

    Raises:
        UserError: No frame has landmarks, or the model's file is wrong.
    """
    model = load_face_model()
    landmarks = np.load(layout.mesh_landmarks)
    height, width = read_rgb(layout.frame(0)).shape[:2]
    size, valid = (width, height), np.isfinite(landmarks).all(axis=(1, 2))
    if not valid.any():
        raise UserError(f"{layout.mesh_landmarks} has no frame with a face; use a video that shows a face.")
    seen = torch.from_numpy(landmarks[:, MESH_TO_68, :2]).float()
    drawn = drawn_size(size)

    def picture(k: int) -> Float[Tensor, "h w 3"]:
        return torch.from_numpy(resize(read_rgb(layout.frame(k)), *drawn)).float() / 255

    start = fit_landmarks(model, seen, size, progress)
    track = fit_pictures(model, start, seen, picture, size, progress)
    whole = _with_mesh(model, track, landmarks, size, progress)
    write_track(layout, whole, valid, size, track.identity, track.expression)
    errors = (project_landmarks(model, track, size) - seen).norm(dim=-1).mean(1)
    usual = errors[torch.from_numpy(valid)].median()
    return {
        "tracker": "bfm",
        "frames": len(landmarks),
        "invalid_frames": np.flatnonzero(~valid).tolist(),
        "doubtful_frames": (errors > DOUBTFUL * usual).nonzero()[:, 0].tolist(),
        "focal_px": round(track.focal_px, 2),
        "model_error_px": round(float(errors[torch.from_numpy(valid)].mean()), 4),
        "jitter_before": jitter(_rigid(start)),
        "jitter_after": jitter(_rigid(track)),
    }


def _rigid(track: ModelTrack) -> FaceTrack:
    """Return the poses alone, metres."""
    none = track.rotations.new_zeros(0, 0, 3)
    translations = track.translations / DECIMETRES_PER_METRE
    return FaceTrack(
        track.focal_px,
        none[:, :0].reshape(0, 3),
        none,
        none.new_zeros(len(translations), 0),
        track.rotations,
        translations,
    )


def _with_mesh(
    model: FaceModel, track: ModelTrack, landmarks: Float[np.ndarray, "T 478 3"], size: tuple[int, int],
    progress: Progress,
) -> FaceTrack:  # fmt: skip
    """Give the model's poses the 478 landmarks: first where they lie on its surface, then how they move."""
    valid = np.isfinite(landmarks).all(axis=(1, 2))
    found = np.flatnonzero(valid)
    keys = torch.from_numpy(found[np.linspace(0, len(found) - 1, min(DEPTH_FRAMES, len(found))).round().astype(int)])
    places = torch.stack([_on_surface(model, track.frames(k[None]), landmarks[k], size) for k in keys])
    observed = torch.from_numpy(fill_missing(landmarks)[..., :2]).float()
    mesh = _rigid(track)
    mesh.shape = places.median(0).values / DECIMETRES_PER_METRE
    mesh.basis = mesh.basis.new_zeros(0, len(mesh.shape), 3)
    center = observed.new_tensor(size) / 2
    mesh = relearn_expressions(mesh, observed, center, observed.new_zeros(len(mesh.shape)), keys)
    return fit_expressions(mesh, landmarks, size, stillness(mesh), progress)


def _on_surface(
    model: FaceModel, frame: ModelTrack, landmarks: Float[np.ndarray, "478 3"], size: tuple[int, int]
) -> Float[Tensor, "478 3"]:
    """Return where in the head frame (decimetres) a frame's landmarks lie on the model as it is drawn.

    Those that are seen beside it get the depth of the nearest pixel that shows it.
    """
    with torch.no_grad():
        _, shown, depth = render(model, frame, size, size)
    if not bool(shown.any()):
        depth, shown = torch.full_like(depth, float(-frame.translations[0, 2])), torch.ones_like(shown)
    _, (rows, columns) = distance_transform_edt(~shown[0].numpy(), return_indices=True)
    column = landmarks[:, 0].astype(int).clip(0, size[0] - 1)
    row = landmarks[:, 1].astype(int).clip(0, size[1] - 1)
    z = depth[0][rows[row, column], columns[row, column]]
    away = torch.from_numpy(landmarks[:, :2]).float() - z.new_tensor(size) / 2
    camera = torch.cat([away * z.new_tensor([1.0, -1.0]) * (z / frame.focal_px)[:, None], -z[:, None]], 1)
    return (camera - frame.translations) @ frame.rotations[0]
