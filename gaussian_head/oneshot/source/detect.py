"""Which face of a picture is meant, and where its 68 points are.

Two finders: RetinaFace with FAN, as SadTalker has them (specs/one_shot.md 1.1), where their weights are present; else
MediaPipe's, whose weights come with its package. Large pictures are shrunk for the search alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from gaussian_head.geometry.landmarks import MESH_TO_68
from gaussian_head.media.image import resize
from gaussian_head.networks.face_mesh import FaceMeshDetector, detect_face_boxes, import_mediapipe
from gaussian_head.networks.fan import load_fan, to_68
from gaussian_head.networks.retinaface import MAX_OVERLAP, load_retinaface
from gaussian_head.networks.s3fd import suppress
from gaussian_head.networks.weights import WeightsMissingError, find_weights

FinderName = Literal["auto", "retinaface", "mediapipe"]
SEARCH_PX = 1280
"""Pictures with a longer side are searched at this size."""
WINDOW_SHARES = (1.0, 0.5, 0.25)
"""Where no face is found, squares of these shares of the shorter side are searched one by one."""
LOOK_SHARE, LOOK_PX = 2.0, 512
"""MediaPipe's mesh looks at a square this many times as large as the face found, at this size."""


@dataclass(frozen=True)
class FoundFace:
    """The largest face of a picture."""

    landmarks: Float[ndarray, "68 2"]
    """x, y in px of the picture, pixel centres at + 0.5."""
    faces: int
    """How many faces the picture shows."""
    mesh: Float[ndarray, "478 3"] | None = None
    """MediaPipe's points in px of the picture, x and y likewise; z smaller is nearer. None from other finders."""

    @property
    def size_px(self) -> float:
        """Return the larger of width and height from the brows to the chin."""
        return float(np.ptp(self.landmarks, axis=0).max())

    @property
    def tilt_deg(self) -> float:
        """Return the turn of the line through the eyes in the picture, clockwise, -180..180."""
        x, y = self.landmarks[42:48].mean(0) - self.landmarks[36:42].mean(0)
        return float(np.degrees(np.arctan2(y, x)))


@runtime_checkable
class FaceFinder(Protocol):
    """Finds the largest face of a picture."""

    name: str

    def find(self, rgb: UInt8[ndarray, "H W 3"]) -> FoundFace | None:
        """Return the face, or None where there is none."""
        ...


class MediaPipeFinder:
    """MediaPipe's full-range detector, then its mesh on a look at the face alone."""

    name = "mediapipe"

    def __init__(self) -> None:
        """Load nothing yet.

        Raises:
            UserError: mediapipe is not installed.
        """
        import_mediapipe()

    def find(self, rgb: UInt8[ndarray, "H W 3"]) -> FoundFace | None:
        """See `FaceFinder`."""
        small, scale = shrunken(rgb)
        found = _first_mesh(rgb, detect_face_boxes([small])[0] / scale)
        if found is None:  # the full-range detector misses faces that fill the picture
            mesh = _mesh_in(small)
            found = None if mesh is None else FoundFace(mesh[MESH_TO_68, :2] / scale, 1, mesh / scale)
        return found or _first_mesh(rgb, _boxes_in_windows(rgb))


class RetinaFaceFinder:
    """RetinaFace, then FAN."""

    name = "retinaface"

    def __init__(self) -> None:
        """Load the public weights.

        Raises:
            UserError: They are missing (WeightsMissingError), damaged, or another network's.
        """
        self.detector, self.aligner = load_retinaface(), load_fan()

    def find(self, rgb: UInt8[ndarray, "H W 3"]) -> FoundFace | None:
        """See `FaceFinder`."""
        small, scale = shrunken(rgb)
        boxes = self.detector.detect(small)[0] / scale
        if not len(boxes):
            return None
        largest = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()
        return FoundFace(to_68(self.aligner.find(rgb, boxes[largest])), len(boxes))


def open_finder(name: FinderName = "auto") -> FaceFinder:
    """Open a finder; `auto` takes RetinaFace and FAN where their weights are present, else MediaPipe.

    Raises:
        UserError: The finder named lacks its weights (WeightsMissingError) or its package.
    """
    if name == "auto":
        name = "retinaface" if _weights_present("retinaface", "fan") else "mediapipe"
    return RetinaFaceFinder() if name == "retinaface" else MediaPipeFinder()


def shrunken(rgb: UInt8[ndarray, "H W 3"]) -> tuple[UInt8[ndarray, "h w 3"], float]:
    """Return the picture at no more than SEARCH_PX, and by what it was scaled."""
    height, width = rgb.shape[:2]
    scale = min(1.0, SEARCH_PX / max(height, width))
    return resize(rgb, max(1, round(width * scale)), max(1, round(height * scale))), scale


def _first_mesh(rgb: UInt8[ndarray, "H W 3"], boxes: Float[ndarray, "N 4"]) -> FoundFace | None:
    """Return the largest box's face of which the mesh finds the points, too."""
    meshes = (_mesh_near(rgb, box) for box in boxes)
    mesh = next((mesh for mesh in meshes if mesh is not None), None)
    return None if mesh is None else FoundFace(mesh[MESH_TO_68, :2], len(boxes), mesh)


def _boxes_in_windows(rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "N 4"]:
    """Look through smaller and smaller squares of a picture: the detector sees 192 px, small faces vanish in that."""
    height, width = rgb.shape[:2]
    for share in WINDOW_SHARES:
        side = max(1, round(min(height, width) * share))
        corners = [(x, y) for y in _starts(height, side) for x in _starts(width, side)]
        windows = [np.ascontiguousarray(rgb[y : y + side, x : x + side]) for x, y in corners]
        found = [boxes + (*xy, *xy) for xy, boxes in zip(corners, detect_face_boxes(windows), strict=True)]
        boxes = np.concatenate(found)
        if len(boxes):
            return boxes[suppress(boxes, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), MAX_OVERLAP)]
    return np.zeros((0, 4))


def _starts(length: int, side: int) -> list[int]:
    """Return where windows begin that cover a length and overlap by half."""
    count = -(-2 * (length - side) // side) + 1
    return np.linspace(0, length - side, count).astype(int).tolist()


def _mesh_near(rgb: UInt8[ndarray, "H W 3"], box: Float[ndarray, "4"]) -> Float[ndarray, "478 3"] | None:
    """Show the mesh a square around a box, enlarged or shrunken to LOOK_PX; the picture's edge is repeated outwards."""
    scale = LOOK_PX / (LOOK_SHARE * max(box[2] - box[0], box[3] - box[1]))
    corner = (box[:2] + box[2:]) / 2 - LOOK_PX / scale / 2
    low = np.maximum(np.floor(corner), 0).astype(int)
    high = np.minimum(np.ceil(corner + LOOK_PX / scale), rgb.shape[1::-1]).astype(int)
    if (high <= low).any():
        return None
    part = rgb[low[1] : high[1], low[0] : high[0]]
    width, height = (max(1, round(side * scale)) for side in high - low)
    part, scales = resize(part, width, height), np.array([width, height]) / (high - low)
    start = (low - corner) * scale
    warp = np.array([[1, 0, start[0]], [0, 1, start[1]]])
    look = cv2.warpAffine(part, warp, (LOOK_PX, LOOK_PX), borderMode=cv2.BORDER_REPLICATE)
    mesh = _mesh_in(look)
    if mesh is not None:
        mesh[:, :2] = (mesh[:, :2] - start) / scales + low
        mesh[:, 2] /= scale
    return mesh


def _mesh_in(rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "478 3"] | None:
    with FaceMeshDetector() as detector:
        return detector.detect(rgb)


def _weights_present(*names: str) -> bool:
    try:
        return all(find_weights(name) for name in names)
    except WeightsMissingError:
        return False
