"""Follow one face through a clip with any network of MediaPipe's mesh points, averaging looks at each picture.

Such a network sees a crop placed by its previous result, and its answer trembles with that crop. So each picture is
shown under four small rotations and scalings and the answers, mapped back, are averaged: about a quarter less
trembling, and, unlike filtering over time, no lag (docs/formats.md has the figures).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

VIEWS = ((4.0, 1.0), (-4.0, 1.0), (0.0, 0.94), (0.0, 1.06))
"""Rotation in degrees (counter-clockwise on screen) and scale of each look at a picture."""
_RIVAL_SHARE = 0.5
"""A face this much smaller than the largest may still be the one that is followed."""


@dataclass(frozen=True)
class Face:
    """One face in a picture."""

    points: Float[ndarray, "478 3"]
    """x, y in px of the picture (pixel centres at + 0.5) and MediaPipe's relative z in px (smaller is nearer)."""
    blendshapes: Float[ndarray, "S"] | None = None
    """Scores in 0..1; None from networks that have none."""
    transform: Float[ndarray, "4 4"] | None = None
    """Canonical face (cm) to camera, OpenGL axes; None likewise."""

    def unwarped(self, warp: Float[ndarray, "2 3"], angle_deg: float, scale: float) -> Face:
        """Return the face as it is in the picture that was turned by an angle and scaled by `warp` (OpenCV's).

        A turn of the picture turns the head about the optical axis; a larger picture shows a head that is nearer.
        """
        points = self.points.copy()
        # Points are continuous coordinates (centres at + 0.5); OpenCV's matrix has pixel centres at integers.
        points[:, :2] = (points[:, :2] - 0.5 - warp[:, 2]) @ np.linalg.inv(warp[:, :2]).T + 0.5
        points[:, 2] /= scale
        if self.transform is None:
            return Face(points, self.blendshapes)
        cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
        transform = self.transform.copy()
        transform[:3] = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ transform[:3]
        transform[2, 3] *= scale
        return Face(points, self.blendshapes, transform)


def mean_face(faces: list[Face]) -> Face:
    """Average looks at one face."""
    points = np.mean([face.points for face in faces], 0)
    if faces[0].blendshapes is None or faces[0].transform is None:
        return Face(points)
    transform = np.mean([face.transform for face in faces], 0)
    u, _, v = np.linalg.svd(transform[:3, :3])
    transform[:3, :3] = u @ v
    return Face(points, np.mean([face.blendshapes for face in faces], 0), transform)


class FaceFollower(ABC):
    """Follows one face: the largest at first sight, then the one where it last was."""

    def __init__(self, views: tuple[tuple[float, float], ...] = VIEWS) -> None:
        """Start a clip.

        Args:
            views: Looks at each picture; `((0.0, 1.0),)` is the bare network, four times faster.
        """
        self._views = views
        self._previous: ndarray | None = None
        self.crowded_share = 0.0
        """Share of the looks so far that saw a second face."""
        self._looks = 0

    @abstractmethod
    def _find(self, rgb: UInt8[ndarray, "H W 3"], *, static: bool) -> list[Face]:
        """Run the network; `static` looks for faces anew instead of where they were."""

    def follow(self, rgb: UInt8[ndarray, "H W 3"]) -> Face | None:
        """Find the face in the clip's next picture; None where there is none."""
        found = []
        for view in self._views:
            face = self._look(rgb, *view)
            if face is not None:
                found.append(face)
                self._previous = face.points
        if not found:
            face = self._look(rgb, 0.0, 1.0, static=True)
            found = [] if face is None else [face]
        face = mean_face(found) if found else None
        self._previous = None if face is None else face.points
        return face

    def _look(self, rgb: ndarray, angle_deg: float, scale: float, *, static: bool = False) -> Face | None:
        height, width = rgb.shape[:2]
        warp = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle_deg, scale)
        if (angle_deg, scale) != (0.0, 1.0):
            rgb = cv2.warpAffine(rgb, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
        faces = [face.unwarped(warp, angle_deg, scale) for face in self._find(rgb, static=static)]
        faces = _without_doubles(faces)
        self._looks += 1
        self.crowded_share += ((len(faces) > 1) - self.crowded_share) / self._looks
        return self._choose(faces)

    def _choose(self, faces: list[Face]) -> Face | None:
        if not faces:
            return None
        if self._previous is None:
            return faces[0]
        near = [face for face in faces if _area(face) >= _RIVAL_SHARE * _area(faces[0])]
        centre = self._previous[:, :2].mean(0)
        return min(near, key=lambda face: float(np.linalg.norm(face.points[:, :2].mean(0) - centre)))


def _area(face: Face) -> float:
    return float(np.prod(np.ptp(face.points[:, :2], axis=0)))


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Sort faces by size and drop those whose centre lies in a larger one: the same face found twice."""
    kept: list[Face] = []
    for face in sorted(faces, key=_area, reverse=True):
        centre = face.points[:, :2].mean(0)
        boxes = [(other.points[:, :2].min(0), other.points[:, :2].max(0)) for other in kept]
        if not any(((low < centre) & (centre < high)).all() for low, high in boxes):
            kept.append(face)
    return kept
