"""Stage `landmarks`: MediaPipe's mesh points of every frame, `landmarks478.npy` and `ori_imgs/<k>.lms`."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_utils.published import weights_facts
from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.geometry.landmarks import MESH_POINTS, MESH_TO_68
from gaussian_head.media.files import replacing, write_bytes
from gaussian_head.media.image import read_rgb
from gaussian_head.networks.face_follower import VIEWS, Face, FaceFollower

MINIMUM_SHARE = 0.8
"""Share of frames that must show a face."""
CROWDED_SHARE = 0.05
"""A second face seen more often than this is told; less often it is likely a mistake of the detector."""

logger = logging.getLogger(__name__)


def extract_landmarks(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write the landmarks of every frame by MediaPipe's face mesh; nothing is written when the clip is refused.

    Frames without a face keep their number: NaN rows in `landmarks478.npy`, no `.lms` file.

    Args:
        layout: The folder, with `ori_imgs/`.
        progress: Wraps the loop.

    Returns:
        Facts: frames, invalid_frames (their numbers), views (looks averaged), two_faces, trembling_px (median second
        difference of the landmarks, an upper bound of their noise).

    Raises:
        UserError: No face at all, or a face in fewer than 80 % of the frames.
    """
    from gaussian_head.networks.face_mesh import FaceMeshDetector

    with FaceMeshDetector() as detector:
        _, facts = _extract(layout, detector, progress)
    layout.face_task.unlink(missing_ok=True)  # it would tell of other landmarks
    return facts


def extract_task_landmarks(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write the landmarks of every frame by MediaPipe's face landmarker task, its blendshapes and poses as well.

    Likewise in all else; `face_task.safetensors` has NaN rows where no face was found.

    Returns:
        Facts as those of `extract_landmarks`, and the file's name and SHA-256.

    Raises:
        UserError: As above, or the task's file is missing or damaged.
    """
    from data_utils.face_task import write_face_task
    from gaussian_head.networks.face_landmarker import FaceLandmarker

    with FaceLandmarker() as detector:
        faces, facts = _extract(layout, detector, progress)
    write_face_task(layout, faces)
    return {"landmarks": "task", **facts, **weights_facts("face_landmarker")}


def find_meshes(pictures: list[Path], progress: Progress = no_progress) -> Float32[np.ndarray, "T 478 3"]:
    """Find the face in each picture of a clip by the face mesh.

    Args:
        pictures: One for each frame; one that does not exist shows no face.
        progress: Wraps the loop.

    Returns:
        Landmarks, NaN where there is no face.

    Raises:
        UserError: No face at all, or a face in fewer than 80 % of the pictures that exist.
    """
    from gaussian_head.networks.face_mesh import FaceMeshDetector

    with FaceMeshDetector() as detector:
        return _points(_follow(pictures, detector, progress))


def _extract(
    layout: SubjectLayout, detector: FaceFollower, progress: Progress
) -> tuple[list[Face | None], dict[str, Any]]:
    """Follow the face through the folder's frames and write its landmarks; return it, and the facts."""
    faces = _follow([layout.frame(k) for k in range(count_frames(layout))], detector, progress)
    landmarks = _points(faces)
    _write(layout, landmarks)
    return faces, {
        "frames": len(faces),
        "invalid_frames": np.flatnonzero(np.isnan(landmarks[:, 0, 0])).tolist(),
        "two_faces": detector.crowded_share > CROWDED_SHARE,
        "views": len(VIEWS),
        "trembling_px": round(float(np.nanmedian(np.abs(np.diff(landmarks[..., :2], n=2, axis=0)))), 3),
    }


def _follow(pictures: list[Path], detector: FaceFollower, progress: Progress) -> list[Face | None]:
    existing = [k for k, path in enumerate(pictures) if path.is_file()]
    faces: list[Face | None] = [None] * len(pictures)
    for k in progress(existing, len(existing), "landmarks"):
        faces[k] = detector.follow(read_rgb(pictures[k]))
    _check_enough(len(existing), [k for k in existing if faces[k] is None])
    if detector.crowded_share > CROWDED_SHARE:
        logger.warning("two faces seen: the largest is taken; crop the video if it is not the one you mean.")
    return faces


def _points(faces: list[Face | None]) -> Float32[np.ndarray, "T 478 3"]:
    points = np.full((len(faces), MESH_POINTS, 3), np.nan, np.float32)
    for k, face in enumerate(faces):
        if face is not None:
            points[k] = face.points
    return points


def _check_enough(count: int, invalid: list[int]) -> None:
    share = 1 - len(invalid) / count
    if share == 0:
        raise UserError(f"no face found in any of the video's {count} frames; give a video of a face, lit and large.")
    if share < MINIMUM_SHARE:
        raise UserError(
            f"a face was found in {share:.0%} of the video's {count} frames, at least {MINIMUM_SHARE:.0%} are needed "
            f"(first without: frame {invalid[0]}, at {invalid[0] / VIDEO_FPS:.1f} s); cut those parts out of the video."
        )


def _write(layout: SubjectLayout, landmarks: np.ndarray) -> None:
    for k, points in enumerate(landmarks):
        if np.isnan(points[0, 0]):
            layout.landmarks68(k).unlink(missing_ok=True)
            continue
        text = io.StringIO()
        np.savetxt(text, points[MESH_TO_68, :2], fmt="%f")
        write_bytes(layout.landmarks68(k), text.getvalue().encode())
    with replacing(layout.mesh_landmarks) as temporary, temporary.open("wb") as file:
        np.save(file, landmarks)
