"""A portrait as a talking head: found in its picture, animated in a part of it, put back at its place.

The picture keeps its size; small ones are enlarged, so that the part around the head has `size` pixels, huge ones
shrunk. Only that part is animated, and only what moves in it differs from the picture.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from gaussian_head.data.layout import VIDEO_FPS
from gaussian_head.errors import UserError
from gaussian_head.media.image import read_upright, resize
from gaussian_head.networks.face_mesh import import_mediapipe, quiet_stderr
from gaussian_head.oneshot.mesh.acting import Actor
from gaussian_head.oneshot.mesh.renderer import FacePose, PortraitMesh
from gaussian_head.oneshot.mesh.rig import FaceFrame
from gaussian_head.oneshot.source.detect import MediaPipeFinder
from gaussian_head.oneshot.source.source import WHITE, over

SMALL_FACE_PX, LEAST_FACE_PX = 120, 40
"""From the forehead to the chin: smaller faces come out blurred, of still smaller ones nothing is made."""
AROUND = (1.30, 1.15, 1.75)
"""The part that is animated: face heights beside, above and below the face's middle."""
MOST_ENLARGED = 4.0
WORKERS = 2
"""Frames that are drawn at once."""
LARGEST_PX, LARGEST_PART_PX = 1920, 1088
"""Longer side, at most, of the video and of the part that is animated: larger pictures are shrunk."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """A picture with a face, at the size of the video."""

    rgb: UInt8[ndarray, "H W 3"]
    """0..255; what was transparent is white."""
    landmarks: Float[ndarray, "478 3"]
    """MediaPipe's points, px with pixel centres at + 0.5."""
    person: Float[ndarray, "H W"]
    """Coverage by the person, 0..1."""


def read_portrait(path: Path, size: int = 512) -> Portrait:
    """Read a picture and find its largest face.

    Args:
        path: Any picture; what is transparent becomes white.
        size: Pictures are enlarged, up to four times, until the part around the head is about as large, px.

    Raises:
        FileNotFoundError: No such file.
        UserError: It is no picture, shows no face or too small a one, or mediapipe is not installed.
    """
    picture = read_upright(path)
    if picture.shape[2] == 4:
        logger.warning("%s is transparent in parts: they become white.", path)
        picture = over(picture[:, :, :3], picture[:, :, 3], WHITE)
    found = MediaPipeFinder().find(picture)
    if found is None or found.mesh is None:
        raise UserError(f"{path} shows no face that can be found; give a portrait seen from the front.")
    if found.faces > 1:
        logger.warning("%s shows %d faces; the largest is animated.", path, found.faces)
    face_px = FaceFrame.of(found.mesh).height_px
    if face_px < LEAST_FACE_PX:
        raise UserError(
            f"{path}: its face is {face_px:.0f} px high, {LEAST_FACE_PX} px are needed; give a larger picture."
        )
    if face_px < SMALL_FACE_PX:
        logger.warning("%s: its face is only %.0f px high; it is enlarged and comes out blurred.", path, face_px)
    return scaled(picture, found.mesh, size)


def scaled(rgb: UInt8[ndarray, "H W 3"], landmarks: Float[ndarray, "478 3"], size: int) -> Portrait:
    """Bring a picture to the size of the video, and find the person in it."""
    height, width = rgb.shape[:2]
    left, top, right, bottom = part_around(landmarks, width, height)
    scale = min(max(1.0, size / max(right - left, bottom - top)), MOST_ENLARGED)
    scale = scale if scale > 1.15 else 1.0  # hardly enlarged, a picture only loses
    largest = min(LARGEST_PX / max(width, height), LARGEST_PART_PX / max(right - left, bottom - top))
    if largest < min(scale, 1.0):
        logger.warning("The picture is shrunk from %d x %d px to %.0f %% for the video.", width, height, 100 * largest)
    scale = min(scale, largest)
    wide, high = (max(2, round(side * scale)) for side in (width, height))
    rgb = resize(np.ascontiguousarray(rgb), wide, high)
    return Portrait(rgb, landmarks * scale, person_mask(rgb))


def person_mask(rgb: UInt8[ndarray, "H W 3"]) -> Float[ndarray, "H W"]:
    """Return the coverage by people, 0..1 (MediaPipe's selfie segmentation)."""
    mediapipe = import_mediapipe()
    with quiet_stderr(), mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as network:
        return np.clip(network.process(rgb).segmentation_mask, 0, 1)


def part_around(landmarks: Float[ndarray, "478 3"], width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the part that is animated, px, within the picture."""
    frame = FaceFrame.of(landmarks)
    x, y = landmarks[[10, 152], :2].mean(0)
    beside, above, below = np.array(AROUND) * frame.height_px
    left, right = np.clip([x - beside, x + beside], 0, width).astype(int).tolist()
    top, bottom = np.clip([y - above, y + below], 0, height).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


class MeshHead:
    """A `TalkingHead`: moves a portrait by what it hears, without weights of others."""

    fps = VIDEO_FPS

    def __init__(self, portrait: Portrait, actor: Actor) -> None:
        """Prepare the portrait.

        Args:
            portrait: As from `read_portrait`.
            actor: Tells the poses.
        """
        self._actor, self._rgb = actor, portrait.rgb
        height, width = portrait.rgb.shape[:2]
        left, top, right, bottom = part_around(portrait.landmarks, width, height)
        self._part = (slice(top, bottom), slice(left, right))
        landmarks = portrait.landmarks - [left, top, 0]
        rgb = np.ascontiguousarray(portrait.rgb[self._part])
        self.mesh = PortraitMesh(rgb, landmarks, np.ascontiguousarray(portrait.person[self._part]))

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the frames, px."""
        return self._rgb.shape[1], self._rgb.shape[0]

    @property
    def moving_part(self) -> Bool[ndarray, "H W"]:
        """Return where frames may differ from the picture; everywhere else they are it, bit for bit."""
        moving = np.zeros(self._rgb.shape[:2], bool)
        moving[self._part] = self.mesh.moving_part
        return moving

    def speak(self, speech: Float[ndarray, "S"]) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """See `TalkingHead`."""
        yield from self.show(self._actor.act(speech))

    def show(self, poses: Iterable[FacePose]) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Draw given poses, in the whole picture, WORKERS at once."""
        with ThreadPoolExecutor(WORKERS) as pool:
            ahead: deque[Future] = deque()
            for pose in poses:
                ahead.append(pool.submit(self._draw, pose))
                if len(ahead) > WORKERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _draw(self, pose: FacePose) -> UInt8[ndarray, "H W 3"]:
        frame = self._rgb.copy()
        frame[self._part] = self.mesh.render(pose)
        return frame

    def landmarks(self, pose: FacePose) -> Float[ndarray, "478 2"]:
        """Return where a pose puts the face's points, px of the frames."""
        rows, columns = self._part
        return self.mesh.landmarks(pose) + [columns.start, rows.start]
