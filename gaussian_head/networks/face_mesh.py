"""MediaPipe's face mesh (478 points with irises), its weights inside the mediapipe wheel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.networks.face_follower import VIEWS, Face, FaceFollower


class FaceMeshDetector(FaceFollower):
    """Follow one face through a clip: the largest at first sight, then the one where it last was."""

    def __init__(self, views: tuple[tuple[float, float], ...] = VIEWS) -> None:
        """Load the networks.

        Args:
            views: See `FaceFollower`.

        Raises:
            UserError: mediapipe is not installed.
        """
        super().__init__(views)
        self._networks: dict[bool, object] = {}
        import_mediapipe()

    def __enter__(self) -> FaceMeshDetector:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for network in self._networks.values():
            network.close()

    def detect(self, rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "478 3"] | None:
        """Find the face.

        Args:
            rgb: The picture, 0..255.

        Returns:
            x, y in px of the picture (pixel centres at + 0.5) and MediaPipe's relative z in px (smaller is nearer);
            None where no face was found.
        """
        face = self.follow(rgb)
        return None if face is None else face.points

    def _find(self, rgb: UInt8[ndarray, "H W 3"], *, static: bool) -> list[Face]:
        if static in self._networks:
            result = self._networks[static].process(rgb)
        else:
            with quiet_stderr():
                self._networks[static] = _open_network(static=static)
                result = self._networks[static].process(rgb)
        return [Face(points_px(face.landmark, rgb)) for face in result.multi_face_landmarks or []]


def points_px(landmarks: Iterable[Any], rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "478 3"]:
    """Turn MediaPipe's normalised landmarks (anything with x, y, z) into those of `Face`."""
    height, width = rgb.shape[:2]
    return np.array([(point.x * width, point.y * height, point.z * width) for point in landmarks])


def detect_face_boxes(pictures: list[UInt8[ndarray, "H W 3"]]) -> list[Float[ndarray, "N 4"]]:
    """Find all faces of each picture, near or far (MediaPipe's full-range detector).

    Returns:
        Per picture (left, top, right, bottom) in px of each box from the brows to the chin, the largest first.

    Raises:
        UserError: mediapipe is not installed.
    """
    mediapipe = import_mediapipe()
    boxes = []
    with quiet_stderr(), mediapipe.solutions.face_detection.FaceDetection(model_selection=1) as detector:
        for rgb in pictures:
            height, width = rgb.shape[:2]
            faces = [face.location_data.relative_bounding_box for face in detector.process(rgb).detections or []]
            faces.sort(key=lambda box: box.width * box.height, reverse=True)
            corners = [(box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height) for box in faces]
            boxes.append(np.array(corners).reshape(-1, 4) * (width, height, width, height))
    return boxes


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send the process's stderr to nowhere for a while: MediaPipe's native code logs there whatever it is told."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def import_mediapipe():  # noqa: ANN201 -- an optional module
    """Return the module, or say how it is installed."""
    try:
        import mediapipe
    except ImportError as error:
        raise UserError("mediapipe is needed to find faces; install it: pip install -e '.[preprocess]'") from error
    return mediapipe


def _open_network(*, static: bool) -> object:
    return import_mediapipe().solutions.face_mesh.FaceMesh(
        static_image_mode=static, refine_landmarks=True, max_num_faces=2, min_detection_confidence=0.5
    )
