"""MediaPipe's face landmarker task: 478 points, 52 blendshapes and a pose, from `face_landmarker.task`.

The blendshapes' network sees 146 of the points, not the picture. The pose lays MediaPipe's canonical face onto the
points under a camera that sees 63 degrees from top to bottom, whatever the real one sees. Both networks run on the CPU;
no GL context is needed. The task smooths its points over time where it looks for one face only; here it looks for two.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.networks.face_follower import VIEWS, Face, FaceFollower
from gaussian_head.networks.face_mesh import import_mediapipe, points_px, quiet_stderr
from gaussian_head.networks.weights import check_task_bundle, find_weights

FIELD_OF_VIEW_DEG = 63.0
"""Of the camera in whose axes poses are told, from the picture's top to its bottom."""
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""Names of the scores, in the network's order; left and right are the subject's own."""
_STEP_MS = 40


class FaceLandmarker(FaceFollower):
    """Follow one face through a clip; every `Face` has blendshapes (order: BLENDSHAPES) and a transform."""

    def __init__(self, given: Path | None = None, views: tuple[tuple[float, float], ...] = VIEWS) -> None:
        """Check the file; the networks are loaded at the first look.

        Args:
            given: The file; default: found as `weights.find_weights` says.
            views: See `FaceFollower`.

        Raises:
            UserError: mediapipe is not installed, or the file is missing, damaged or another task's.
        """
        super().__init__(views)
        import_mediapipe()
        self.path = find_weights("face_landmarker", given)
        check_task_bundle(self.path)
        self._networks: dict[bool, Any] = {}
        self._looks_in_video = 0

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for network in self._networks.values():
            network.close()

    def _find(self, rgb: UInt8[ndarray, "H W 3"], *, static: bool) -> list[Face]:
        if static in self._networks:
            return faces_of(self._detect(rgb, static=static), rgb)
        with quiet_stderr():
            self._networks[static] = _open_task(self.path, static=static)
            return faces_of(self._detect(rgb, static=static), rgb)

    def _detect(self, rgb: UInt8[ndarray, "H W 3"], *, static: bool) -> Any:  # noqa: ANN401 -- MediaPipe's result
        mediapipe = import_mediapipe()
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        if static:
            return self._networks[True].detect(image)
        self._looks_in_video += 1  # the clock must advance at every look
        return self._networks[False].detect_for_video(image, self._looks_in_video * _STEP_MS)


def faces_of(result: Any, rgb: UInt8[ndarray, "H W 3"]) -> list[Face]:  # noqa: ANN401 -- MediaPipe's result
    """Turn a FaceLandmarkerResult for a picture into faces.

    Raises:
        UserError: Its blendshapes are not those of BLENDSHAPES.
    """
    faces = []
    told = zip(result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True)
    for landmarks, categories, transform in told:
        names = tuple(category.category_name for category in categories)
        if names != BLENDSHAPES:
            raise UserError(
                f"face_landmarker.task tells {len(names)} blendshapes {names[:3]}..., expected {len(BLENDSHAPES)} "
                f"{BLENDSHAPES[:3]}...; see scripts/prepare.sh for the file that is meant."
            )
        scores = np.array([category.score for category in categories])
        faces.append(Face(points_px(landmarks, rgb), scores, np.array(transform, dtype=np.float64)))
    return faces


def _open_task(path: Path, *, static: bool) -> object:
    import_mediapipe()
    from mediapipe.tasks.python import BaseOptions, vision

    mode = vision.RunningMode.IMAGE if static else vision.RunningMode.VIDEO
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(path), delegate=BaseOptions.Delegate.CPU),
        running_mode=mode, num_faces=2, output_face_blendshapes=True, output_facial_transformation_matrixes=True,
    )  # fmt: skip
    try:
        return vision.FaceLandmarker.create_from_options(options)
    except (ValueError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} is no face landmarker that mediapipe can load: {first}") from error
