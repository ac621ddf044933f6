"""What face renderers learn from: pairs of frames of one clip, each with the coefficients around it.

A folder holds videos of faces, cut square, and beside each `<name>.mp4` its coefficients `<name>.mat`, a row a frame
(`python -m data_utils.coefficients <name>.mp4`). Frames are decoded when they are drawn; as many are kept as agreed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy import ndarray

from gaussian_head.data.coefficient_files import load_coefficients
from gaussian_head.errors import UserError
from gaussian_head.media.video import frame_times, probe_video, read_frames_numbered
from gaussian_head.oneshot.face_renderer.windows import semantic_windows


class PairBatch(NamedTuple):
    """B times two frames of one clip. Pictures are RGB, 0..255; windows are `semantic_windows`."""

    source: UInt8[ndarray, "B S S 3"]
    target: UInt8[ndarray, "B S S 3"]
    source_windows: Float32[ndarray, "B M 27"]
    target_windows: Float32[ndarray, "B M 27"]


@dataclass(frozen=True)
class Clip:
    """A video and what moves the face in it."""

    video: Path
    times: Float64[ndarray, "T"]
    """Of its frames, in seconds."""
    motion: Float32[ndarray, "T M"]


class PairedClips:
    """Draws pairs of frames from a folder of clips."""

    def __init__(self, folder: Path, side_px: int, *, crop: bool, cache_mb: float | int) -> None:
        """Look at every clip's length and read its coefficients.

        Args:
            folder: See this module's docstring.
            side_px: Frames are resized to this width and height.
            crop: Whether motion vectors end with the crop: 73 numbers instead of 70.
            cache_mb: Megabytes of frames that are kept at most; each beyond them is decoded again when it is drawn.

        Raises:
            FileNotFoundError: A video has no coefficients.
            UserError: There is no video, or coefficients are another video's, damaged, or without the crop.
        """
        videos = sorted(folder.glob("*.mp4"))
        if not videos:
            raise UserError(f"{folder} holds no .mp4; give a folder of videos of faces, each with its .mat beside it.")
        self.clips = [_open(video, crop) for video in videos]
        self.side_px = side_px
        self._most = max(1, int(cache_mb * 1e6 / (3 * side_px**2)))
        self._kept: OrderedDict[tuple[int, int], ndarray] = OrderedDict()

    def draw(self, random: np.random.Generator, count: int) -> PairBatch:
        """Draw pairs: a clip each, and two different frames of it, all equally likely."""
        parts = []
        for _ in range(count):
            number = int(random.integers(len(self.clips)))
            frames = random.choice(len(self.clips[number].times), 2, replace=False)
            windows = semantic_windows(self.clips[number].motion, frames)
            parts.append((*self.frames(number, frames.tolist()), *windows))
        return PairBatch(*(np.stack(column) for column in zip(*parts, strict=True)))

    def frames(self, clip: int, numbers: list[int]) -> list[UInt8[ndarray, "S S 3"]]:
        """Return frames of a clip, resized, from memory where they are there."""
        held = {number: self._kept[clip, number] for number in numbers if (clip, number) in self._kept}
        video = self.clips[clip]
        for number, picture in read_frames_numbered(video.video, video.times, set(numbers) - set(held)).items():
            held[number] = cv2.resize(picture, (self.side_px, self.side_px), interpolation=cv2.INTER_AREA)
        for number, picture in held.items():
            self._kept[clip, number] = picture
            self._kept.move_to_end((clip, number))
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return [held[number] for number in numbers]


def _open(video: Path, crop: bool) -> Clip:  # noqa: FBT001 -- of this module alone
    path, times = video.with_suffix(".mat"), frame_times(video)
    face, info = load_coefficients(path), probe_video(video)
    remedy = f"extract them again: python -m data_utils.coefficients {video}"
    if len(face) != len(times):
        raise UserError(f"{path} has {len(face)} rows, {video.name} has {len(times)} frames; {remedy}")
    if len(times) < 2:
        raise UserError(f"{video} has one frame; a pair needs two. Take it out of the folder.")
    if info.width != info.height:
        raise UserError(f"{video} is {info.width} x {info.height} px; cut it square around the face, then {remedy}")
    if crop and face.crop is None:
        raise UserError(f"{path} has no crop, which this renderer is moved by, too; {remedy}")
    return Clip(video, times, np.ascontiguousarray(face.motion(crop), np.float32))
