"""What is measured: a clip on disk, its pictures as everybody decodes them, and the footage it is compared with.

Videos are decoded by PyAV with its default conversion, which is what the field's own evaluation programs see
(specs/metrics.md section 1): bit-identical to OpenCV and ffmpeg where a file says nothing of its colours. A file that
says BT.709 is converted by BT.709 (OpenCV ignores what it says). Rotation and non-square pixels are applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float64, Int64

from gaussian_head.errors import UserError
from gaussian_head.evaluation.metric import Rgb
from gaussian_head.media.image import read_rgb, resize
from gaussian_head.media.video import decoder_version, frame_times, probe_video, read_frames_by_default

Align = Literal["strict", "shortest", "resample"]
"""What to do where two clips differ in frame count, size or rate."""

FOLDER_FPS = 25.0
"""Rate of a folder of frames unless it is given."""
PICTURES = (".png", ".jpg", ".jpeg")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
"""What a clip's file may be called where a set is searched; a file given by name may be called anything."""
RATE_TOLERANCE = 5e-4
"""Rates closer than this, relatively, are the same: containers round them (29.97 and 30 differ by twice as much)."""
CONVERSION = (
    "video: swscale's default flags to rgb24, matrix and range as the file says, BT.601 limited where it says nothing; "
    "frame folder: as stored"
)


@dataclass(frozen=True)
class Clip:
    """A video file or a folder of frames."""

    path: Path
    kind: Literal["video", "folder"]
    width: int
    """px as shown (upright, square pixels)."""
    height: int
    fps: float
    times_s: Float64[np.ndarray, "T"]
    """When each frame is shown; its length is what was counted, and is checked against what is decoded."""
    sound: Path | None = None
    """A file whose sound belongs to the pictures."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """The frames of a folder, in order."""

    @property
    def frames(self) -> int:
        """Return how many there are."""
        return len(self.times_s)

    @property
    def stem(self) -> Path:
        """Return the path beside which companion files lie: `<stem>.coeffs.npy`, `<stem>.au.csv`, ..."""
        return self.path if self.kind == "folder" else self.path.with_suffix("")

    def pictures(self) -> Iterator[Rgb]:
        """Decode the frames in order, one in memory at a time.

        Raises:
            UserError: A frame cannot be decoded, has another size than the first, or their number is not `frames`.
        """
        count = 0
        for rgb in map(_read_picture, self.files) if self.kind == "folder" else read_frames_by_default(self.path):
            if rgb.shape[:2] != (self.height, self.width):
                name = self.files[count] if self.kind == "folder" else f"{self.path}, frame {count},"
                raise UserError(
                    f"{name} is {rgb.shape[1]}x{rgb.shape[0]} px, the frames before it {self.width}x{self.height}; "
                    "all frames of a clip must have one size."
                )
            count += 1
            yield rgb
        if count != self.frames:
            raise UserError(
                f"{self.path} tells of {self.frames} frames and {count} could be decoded: it is damaged or truncated; "
                "copy it again, or re-encode it."
            )

    def document(self) -> dict[str, Any]:
        """Return the JSON values that describe it."""
        return {
            "path": self.path.name,
            "kind": self.kind,
            "frames": self.frames,
            "fps": round(self.fps, 4),
            "size_px": [self.width, self.height],
            "sound": None if self.sound is None else self.sound.name,
        }


def open_clip(path: Path, fps: float | int | None = None) -> Clip:
    """Look at a clip: its size, rate, frames and sound.

    Args:
        path: A video file, or a folder of PNG or JPEG frames (in natural order: 2 before 10).
        fps: Rate of a folder of frames; a video tells its own.

    Raises:
        FileNotFoundError: Nothing is there.
        UserError: The file is no video, is empty or truncated; the folder holds no frames, or PNG and JPEG mixed.
    """
    path = Path(path).absolute()
    if path.is_dir():
        return _open_folder(path, FOLDER_FPS if fps is None else fps)
    info = probe_video(path)
    beside = path.with_suffix(".wav")
    sound = path if info.has_audio else beside if beside.is_file() else None
    return Clip(path, "video", info.width, info.height, info.fps, frame_times(path), sound)


@dataclass(frozen=True)
class Aligned:
    """A clip and the true footage, frame for frame."""

    picture: Clip
    truth: Clip | None
    how: Align
    truth_index: Int64[np.ndarray, "T"] | None
    """The true frame that belongs to frame i of the clip."""

    @property
    def frames(self) -> int:
        """Return how many frames are compared: the first of the clip."""
        return self.picture.frames if self.truth_index is None else len(self.truth_index)

    def pairs(self) -> Iterator[tuple[Rgb, Rgb | None]]:
        """Decode both in step; constant memory.

        Raises:
            UserError: As `Clip.pictures`.
        """
        ours = self.picture.pictures()
        theirs = repeat(None) if self.truth is None else self._true_pictures()
        for _ in range(self.frames):
            yield next(ours), next(theirs)
        if self.frames == self.picture.frames:
            next(ours, None)  # lets the reader see its end, where it compares what it found with what was told

    def _true_pictures(self) -> Iterator[Rgb]:
        source = self.truth.pictures()
        index, rgb = -1, None
        for wanted in self.truth_index:
            while index < wanted:
                index, rgb = index + 1, next(source)
                shown = rgb if self.how != "resample" else None
            if shown is None:
                shown = np.ascontiguousarray(resize(rgb, self.picture.width, self.picture.height))
            yield shown
        if index == self.truth.frames - 1:
            next(source, None)

    @property
    def compared(self) -> dict[str, Any]:
        """Return the JSON values that say what was compared, decoded by what, and what was changed for it."""
        kinds = {clip.kind for clip in (self.picture, self.truth) if clip is not None}
        decoders = {"video": decoder_version(), "folder": f"OpenCV {cv2.__version__}"}
        return {
            "picture": self.picture.document(),
            "truth": None if self.truth is None else self.truth.document(),
            "align": self.how,
            "compared_frames": self.frames,
            "changes": self._changes(),
            "decoder": "; ".join(decoders[kind] for kind in sorted(kinds)),
            "conversion": CONVERSION,
        }

    def _changes(self) -> list[str]:
        if self.truth is None:
            return []
        ours, theirs = self.picture, self.truth
        in_step = np.array_equal(self.truth_index, np.arange(self.frames))
        changes = [
            f"{name} cut from {clip.frames} to {self.frames} frames"
            for name, clip in (("picture", ours), ("truth", theirs))
            if clip.frames != self.frames and (name == "picture" or in_step)
        ]
        if self.how == "resample":
            if not in_step:
                changes.append(
                    f"truth resampled by time from {theirs.frames} frames at {theirs.fps:g}/s to {self.frames} at "
                    f"{ours.fps:g}/s (nearest frame)"
                )
            if _size(ours) != _size(theirs):
                shrinks = ours.width * ours.height < theirs.width * theirs.height
                changes.append(
                    f"truth resized from {_size(theirs)} to {_size(ours)} px ({'area' if shrinks else 'cubic'})"
                )
        return changes


def align(picture: Clip, truth: Clip | None, how: Align = "strict") -> Aligned:
    """Say which true frame belongs to which frame of a clip.

    Args:
        picture: What is judged; it is never changed, at most cut.
        truth: What it should be.
        how: `strict`: both must have one frame count, size and rate. `shortest`: the longer is cut at its end; sizes
            and rates must agree. `resample`: each frame gets the true frame nearest in time, resized to its size
            (area averaging when it shrinks, else cubic); what lasts longer is cut.

    Raises:
        UserError: They differ in what `how` does not permit, or share no frame; both are told.
        ValueError: No such `how`.
    """
    if how not in get_args(Align):
        raise ValueError(f"align must be one of {', '.join(get_args(Align))}, got {how!r}.")
    if truth is None:
        return Aligned(picture, None, how, None)
    if how == "resample":
        shown = picture.times_s < truth.times_s[-1] + (1 - 1e-3) / truth.fps
        between = (truth.times_s[:-1] + truth.times_s[1:]) / 2
        index = np.searchsorted(between, picture.times_s[shown], side="right")
        if not len(index):
            raise UserError(f"{picture.path} and {truth.path} share no moment; check that they belong together.")
        return Aligned(picture, truth, how, index.astype(np.int64))
    differ = []
    if how == "strict" and picture.frames != truth.frames:
        differ.append(("frames", picture.frames, truth.frames))
    if _size(picture) != _size(truth):
        differ.append(("px", _size(picture), _size(truth)))
    if abs(picture.fps - truth.fps) > RATE_TOLERANCE * truth.fps:
        differ.append(("frames/s", f"{picture.fps:g}", f"{truth.fps:g}"))
    if differ:
        ours, theirs = (", ".join(f"{entry[side]} {entry[0]}" for entry in differ) for side in (1, 2))
        only_count = [unit for unit, *_ in differ] == ["frames"]
        remedy = "--align shortest (cuts the longer) or --align resample" if only_count else "--align resample"
        raise UserError(
            f"{picture.path} has {ours} but {truth.path} has {theirs}; say {remedy} "
            f"({'matches' if only_count else 'changes the truth to match'} by time and size) to compare them."
        )
    return Aligned(picture, truth, how, np.arange(min(picture.frames, truth.frames)))


def _open_folder(path: Path, fps: float | int) -> Clip:
    if not fps > 0:
        raise UserError(f"--fps must be above 0, got {fps:g}.")
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in PICTURES), key=_natural)
    kinds = sorted({file.suffix.lower() for file in files})
    if not files:
        raise UserError(f"{path} holds no .png or .jpg frames; give a video file or a folder of frames.")
    if ".png" in kinds and len(kinds) > 1:
        raise UserError(f"{path} holds {' and '.join(kinds)} files; leave only the frames of one clip there.")
    height, width = _read_picture(files[0]).shape[:2]
    inside = sorted(path.glob("*.wav"))
    named = [file for file in (path.with_name(f"{path.name}.wav"), path / f"{path.name}.wav") if file.is_file()]
    if not named and len(inside) > 1:
        raise UserError(f"{path} holds {len(inside)} .wav files; leave one, or name one {path.name}.wav.")
    sound = next(iter([*named, *inside]), None)
    return Clip(path, "folder", width, height, float(fps), np.arange(len(files)) / fps, sound, tuple(files))


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _read_picture(path: Path) -> Rgb:
    try:
        return read_rgb(path)
    except UserError as error:
        raise UserError(f"{path} is not a readable picture (empty or damaged); write this frame again.") from error


def _size(clip: Clip) -> str:
    return f"{clip.width}x{clip.height}"
