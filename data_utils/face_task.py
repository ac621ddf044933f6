"""What MediaPipe's face landmarker says beside its points, on disk: `face_task.safetensors` (docs/formats.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing
from gaussian_head.networks.face_follower import Face
from gaussian_head.networks.face_landmarker import BLENDSHAPES, FIELD_OF_VIEW_DEG

ABOUT = json.dumps({"format": 1, "blendshapes": BLENDSHAPES, "field_of_view_deg": FIELD_OF_VIEW_DEG})
"""The file's metadata, one entry `face_task`: safetensors orders several at random, and the file's hash must agree."""


@dataclass(frozen=True)
class FaceTask:
    """What the task said of a clip; NaN in frames without a face."""

    blendshapes: Float[ndarray, "T 52"]
    """0..1, in the order of BLENDSHAPES."""
    transforms: Float[ndarray, "T 4 4"]
    """Canonical face (cm) to a camera of FIELD_OF_VIEW_DEG from top to bottom, OpenGL axes."""

    @property
    def valid(self) -> Bool[ndarray, "T"]:
        """Frames with a face."""
        return np.isfinite(self.transforms).all((1, 2))

    def score(self, *names: str) -> Float[ndarray, "T"]:
        """Return the mean of some blendshapes, interpolated where there is no face."""
        frames = np.arange(len(self.blendshapes))
        mean = self.blendshapes[:, [BLENDSHAPES.index(name) for name in names]].mean(1)
        return np.interp(frames, frames[self.valid], mean[self.valid])


def turns_for_focal(task: FaceTask, height: int, focal_px: float) -> Float[ndarray, "T 3 3"]:
    """Return the head's rotations as a camera of another focal length has them.

    What a picture tells is the turn against the ray on which the head is seen; that ray leans less where the focal
    length is longer. Frames without a face have the turn of the last one with a face before them, else the first.

    Args:
        task: What the task said.
        height: Of the picture, px.
        focal_px: The other camera's focal length.

    Returns:
        Canonical face to camera, OpenGL axes.
    """
    known = np.flatnonzero(task.valid)
    latest = np.searchsorted(known, np.arange(len(task.transforms)), side="right") - 1
    transforms = task.transforms[known[latest.clip(0)]].astype(np.float64)
    told_focal_px = height / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    places = transforms[:, :3, 3]
    further = places * (1, 1, focal_px / told_focal_px)
    return (_towards(further) * _towards(places).inv() * Rotation.from_matrix(transforms[:, :3, :3])).as_matrix()


def _towards(places: Float[ndarray, "T 3"]) -> Rotation:
    """Return the shortest rotations that turn the optical axis (0, 0, -1) towards points in front of the camera."""
    rays = places / np.linalg.norm(places, axis=1, keepdims=True)
    axes = np.cross((0.0, 0.0, -1.0), rays)
    sines = np.linalg.norm(axes, axis=1, keepdims=True)
    return Rotation.from_rotvec(axes / np.maximum(sines, 1e-12) * np.arctan2(sines, -rays[:, 2:]))


def write_face_task(layout: SubjectLayout, faces: list[Face | None]) -> None:
    """Write what was said of every frame."""
    blendshapes = np.full((len(faces), len(BLENDSHAPES)), np.nan, np.float32)
    transforms = np.full((len(faces), 4, 4), np.nan, np.float32)
    for k, face in enumerate(faces):
        if face is not None:
            blendshapes[k], transforms[k] = face.blendshapes, face.transform
    with replacing(layout.face_task) as temporary:
        save_file({"blendshapes": blendshapes, "transforms": transforms}, temporary, metadata={"face_task": ABOUT})


def read_face_task(layout: SubjectLayout) -> FaceTask:
    """Read it.

    Raises:
        FileNotFoundError: The landmarks were not made by the task.
        UserError: The file is damaged or of another format.
    """
    path = layout.face_task
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; run: python -m data_utils.process {layout.video} --landmarks task --only landmarks"
        )
    try:
        with safe_open(str(path), framework="numpy") as file:
            if (file.metadata() or {}).get("face_task") != ABOUT:
                raise UserError(f"{path} is no face task of format 1; delete it and process again.")
            return FaceTask(file.get_tensor("blendshapes"), file.get_tensor("transforms"))
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and process again.") from error
