"""MediaPipe's face mesh (478 points with irises), its weights inside the mediapipe wheel.

The mesh network sees a crop placed by the previous result, and its answer trembles with that crop. So each picture is
shown under four small rotations and scalings and the answers, mapped back, are averaged: about a quarter less
trembling, and, unlike filtering over time, no lag (docs/formats.md has the figures).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.errors import UserError

VIEWS = ((4.0, 1.0), (-4.0, 1.0), (0.0, 0.94), (0.0, 1.06))
"""Rotation in degrees and scale of each look at a picture."""
_RIVAL_SHARE = 0.5
"""A face this much smaller than the largest may still be the one that is followed."""


class FaceMeshDetector:
    """Follow one face through a clip: the largest at first sight, then the one where it last was."""

    def __init__(self, views: tuple[tuple[float, float], ...] = VIEWS) -> None:
        """Load the networks.

        Args:
            views: Looks at each picture; `((0.0, 1.0),)` is the bare network, four times faster.

        Raises:
            UserError: mediapipe is not installed.
        """
        self._views = views
        self._previous: ndarray | None = None
        self.crowded_share = 0.0
        """Share of the looks so far that saw a second face."""
        self._looks = 0
        self._networks: dict[bool, object] = {}
        _import_mediapipe()

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
        found = []
        for view in self._views:
            points = self._look(rgb, *view)
            if points is not None:
                found.append(points)
                self._previous = points
        if not found:
            points = self._look(rgb, 0.0, 1.0, static=True)
            found = [] if points is None else [points]
        self._previous = np.mean(found, 0) if found else None
        return self._previous

    def _look(self, rgb: ndarray, angle_deg: float, scale: float, *, static: bool = False) -> ndarray | None:
        height, width = rgb.shape[:2]
        warp = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle_deg, scale)
        if (angle_deg, scale) != (0.0, 1.0):
            rgb = cv2.warpAffine(rgb, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
        faces = self._process(rgb, static).multi_face_landmarks or []
        faces = [np.array([(p.x * width, p.y * height, p.z * width) for p in face.landmark]) for face in faces]
        # Points are continuous coordinates (centres at + 0.5); OpenCV's matrix has pixel centres at integers.
        back = np.linalg.inv(warp[:, :2])
        for face in faces:
            face[:, :2] = (face[:, :2] - 0.5 - warp[:, 2]) @ back.T + 0.5
            face[:, 2] /= scale
        faces = _without_doubles(faces)
        self._looks += 1
        self.crowded_share += ((len(faces) > 1) - self.crowded_share) / self._looks
        return self._choose(faces)

    def _choose(self, faces: list[ndarray]) -> ndarray | None:
        if not faces:
            return None
        if self._previous is None:
            return faces[0]
        near = [face for face in faces if _area(face) >= _RIVAL_SHARE * _area(faces[0])]
        centre = self._previous[:, :2].mean(0)
        return min(near, key=lambda face: float(np.linalg.norm(face[:, :2].mean(0) - centre)))

    def _process(self, rgb: ndarray, static: bool) -> Any:  # noqa: ANN401 -- MediaPipe's result
        """Run the network; `static` looks for faces anew instead of where they were."""
        if static in self._networks:
            return self._networks[static].process(rgb)
        with quiet_stderr():
            self._networks[static] = _open_network(static=static)
            return self._networks[static].process(rgb)


def _area(face: ndarray) -> float:
    return float(np.prod(np.ptp(face[:, :2], axis=0)))


def _without_doubles(faces: list[ndarray]) -> list[ndarray]:
    """Sort faces by size and drop those whose centre lies in a larger one: the same face found twice."""
    kept: list[ndarray] = []
    for face in sorted(faces, key=_area, reverse=True):
        centre = face[:, :2].mean(0)
        if not any(((other[:, :2].min(0) < centre) & (centre < other[:, :2].max(0))).all() for other in kept):
            kept.append(face)
    return kept


def detect_face_boxes(pictures: list[UInt8[ndarray, "H W 3"]]) -> list[Float[ndarray, "N 4"]]:
    """Find all faces of each picture, near or far (MediaPipe's full-range detector).

    Returns:
        Per picture (left, top, right, bottom) in px of each box from the brows to the chin, the largest first.

    Raises:
        UserError: mediapipe is not installed.
    """
    mediapipe = _import_mediapipe()
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


def _import_mediapipe():  # noqa: ANN202 -- an optional module
    try:
        import mediapipe
    except ImportError as error:
        raise UserError("mediapipe is needed to find faces; install it: pip install -e '.[preprocess]'") from error
    return mediapipe


def _open_network(*, static: bool) -> object:
    return _import_mediapipe().solutions.face_mesh.FaceMesh(
        static_image_mode=static, refine_landmarks=True, max_num_faces=2, min_detection_confidence=0.5
    )
