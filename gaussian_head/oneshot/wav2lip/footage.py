"""The video or picture that gets new lips: its frames forwards and backwards, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from gaussian_head.errors import UserError
from gaussian_head.media.image import read_rgb
from gaussian_head.media.time_bases import Rate
from gaussian_head.media.video import probe_video, read_frames_at, read_frames_backwards

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
Crop = tuple[int, int, int, int]
"""Rows and columns: (top, bottom, left, right); a bottom or right of -1 is the frame's edge."""
WHOLE: Crop = (0, -1, 0, -1)
SMALLEST_PX = 32


@runtime_checkable
class Footage(Protocol):
    """Frames of one size, at a constant rate."""

    fps: Rate
    width: int
    height: int
    still: bool
    """There is one frame, which is shown for ever."""

    def forwards(self, first: int = 0) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the frames from `first` to the end, RGB."""
        ...

    def backwards(self, last: int) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the frames from `last` to 0."""
        ...


class VideoFootage:
    """A video file, its frames shrunk, turned and cropped in this order."""

    still = False

    def __init__(
        self, path: Path, resize_factor: int = 1, turn_deg: Literal[0, 90, 180, 270] = 0, crop: Crop = WHOLE
    ) -> None:
        """Look at the video.

        Args:
            path: The file.
            resize_factor: Sides are divided by this.
            turn_deg: Clockwise.
            crop: What is kept.

        Raises:
            FileNotFoundError: No such file.
            UserError: The file is no readable video, or less than SMALLEST_PX is kept of it.
        """
        info = probe_video(path)
        self.fps = info.fps
        self._path, self._factor, self._turns = path, resize_factor, turn_deg // 90
        self._crop: Crop | None = None
        self.height, self.width = self._framed(np.zeros((info.height, info.width, 3), np.uint8)).shape[:2]
        top, bottom, left, right = crop
        self._crop = (
            top, self.height if bottom == -1 else bottom, left, self.width if right == -1 else right
        )  # fmt: skip
        top, bottom, left, right = self._crop
        if not (0 <= top < bottom <= self.height and 0 <= left < right <= self.width):
            raise UserError(
                f"--crop TOP BOTTOM LEFT RIGHT must lie inside the frame of {self.width} x {self.height} px, "
                f"got {' '.join(map(str, crop))}."
            )
        self.height, self.width = bottom - top, right - left
        if min(self.height, self.width) < SMALLEST_PX:
            raise UserError(
                f"{path}: {self.width} x {self.height} px are left, too few for a face; shrink or crop less."
            )

    def forwards(self, first: int = 0) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the frames from `first` to the end, RGB."""
        yield from map(self._framed, read_frames_at(self._path, self.fps, first))

    def backwards(self, last: int) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the frames from `last` to 0."""
        yield from map(self._framed, read_frames_backwards(self._path, self.fps, last))

    def _framed(self, frame: UInt8[ndarray, "H W 3"]) -> UInt8[ndarray, "H2 W2 3"]:
        if self._factor > 1:
            height, width = (max(1, side // self._factor) for side in frame.shape[:2])
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        turned = np.rot90(frame, -self._turns)
        if self._crop is None:
            return turned
        top, bottom, left, right = self._crop
        return np.ascontiguousarray(turned[top:bottom, left:right])


class PictureFootage:
    """A picture, shown for ever."""

    still = True

    def __init__(self, picture: UInt8[ndarray, "H W 3"], fps: Rate) -> None:
        self.fps = fps
        self.height, self.width = picture.shape[:2]
        self._picture = picture

    def forwards(self, first: int = 0) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the picture without end, whatever `first` is."""
        del first
        return repeat(self._picture)

    def backwards(self, last: int) -> Iterator[UInt8[ndarray, "H W 3"]]:
        """Give the picture as often as there were frames up to `last`."""
        return repeat(self._picture, last + 1)


def open_footage(
    path: Path,
    *,
    picture_fps: Rate = 25,
    static: bool = False,
    resize_factor: int = 1,
    turn_deg: Literal[0, 90, 180, 270] = 0,
    crop: Crop = WHOLE,
) -> Footage:
    """Open a video, or a picture (by its suffix, see PICTURES).

    Args:
        path: The file.
        picture_fps: Frame rate of the video that a picture becomes.
        static: Use the video's first frame only.
        resize_factor: See `VideoFootage`; of videos only, as the next two.
        turn_deg: Likewise.
        crop: Likewise.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is not readable, or an option does not fit it.
    """
    if path.suffix.lower() in PICTURES:
        if (resize_factor, turn_deg, crop) != (1, 0, WHOLE):
            raise UserError(
                f"{path} is a picture: --resize-factor, --turn-deg and --crop are for videos; edit it first."
            )
        picture = read_rgb(path)
        if min(picture.shape[:2]) < SMALLEST_PX:
            raise UserError(f"{path} has {picture.shape[1]} x {picture.shape[0]} px, too few for a face.")
        return PictureFootage(picture, picture_fps)
    video = VideoFootage(path, resize_factor, turn_deg, crop)
    return PictureFootage(next(video.forwards()), video.fps) if static else video
