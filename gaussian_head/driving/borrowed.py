"""Motion borrowed from another person: a video, tracked by the front end; its tracked file; or a subject folder."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from gaussian_head.data.coefficient_files import SUFFIXES as COEFFICIENT_SUFFIXES
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.data.subject import Subject
from gaussian_head.driving.sequence import DrivingSequence
from gaussian_head.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UserError
from gaussian_head.media.video import probe_video

logger = logging.getLogger(__name__)

TRACKED = ".safetensors"
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
NATIVE_LOG = re.compile(r"[IW]\d{4} |INFO: |WARNING: All log messages before absl")
"""Lines that MediaPipe's native code writes to stderr whatever it is told."""
_ANY_SIZE = 256
"""At which a subject folder is opened: no picture of it is read."""


def load_driver(source: Path, cache: Path) -> DrivingSequence:
    """Return another person's motion at 25 fps, every frame of it.

    Args:
        source: A video; a driving sequence (`.safetensors`, as `python -m data_utils.track` or `DrivingSequence.save`
            write it); or a subject folder.
        cache: Folder in which the tracks of videos are kept.

    Raises:
        FileNotFoundError: There is no such thing.
        UserError: It is none of these, or a video without a face.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give a video, a driving sequence or a subject folder.")
    if source.is_dir():
        return _from_folder(source)
    if source.suffix != TRACKED:
        tracked = cache / f"{source.stem}{TRACKED}"
        track_video(source, tracked)
        return _checked(DrivingSequence.load(tracked), tracked)
    return _checked(DrivingSequence.load(source), source)


def name_of(source: Path) -> str:
    """Return what a driver is called: a folder's name, a file's without its suffix."""
    return source.resolve().name if source.is_dir() else source.stem


def sound_of(source: Path) -> Path | None:
    """Return the file whose sound belongs to a driver.

    Of a tracked file it is the `.wav` beside it, of coefficients that or else the video beside them.
    """
    if source.is_dir() or source.suffix in (TRACKED, *COEFFICIENT_SUFFIXES):
        sound = SubjectLayout(source).speech if source.is_dir() else source.with_suffix(".wav")
        if sound.is_file():
            return sound
        video = video_beside(source) if source.suffix in COEFFICIENT_SUFFIXES else None
        return None if video is None else sound_of(video)
    return source if probe_video(source).has_audio else None


def video_beside(source: Path) -> Path | None:
    """Return the video of the same name beside a file, where there is one."""
    return next((video for suffix in VIDEOS if (video := source.with_suffix(suffix)).is_file()), None)


def track_video(video: Path, out: Path) -> None:
    """Let the front end track a video, in a process of its own; a track that is up to date is kept.

    Raises:
        UserError: The front end refuses the video; its own words.
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "data_utils.track", str(video), "--out", str(out)]
    refusal = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as front_end:  # noqa: S603 -- ours, no shell
        for line in front_end.stderr or ():
            if line.startswith("error: "):
                refusal = line.removeprefix("error: ").strip()
            elif not NATIVE_LOG.match(line):
                sys.stderr.write(line)
    if front_end.returncode == EXIT_BAD_INPUT:
        raise UserError(refusal)
    if front_end.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if front_end.returncode:
        raise RuntimeError(f"tracking {video} failed with status {front_end.returncode}; its messages are above.")


def _from_folder(root: Path) -> DrivingSequence:
    """Take all frames of a subject folder; where no face was found, the motion is interpolated."""
    subject = Subject(root, _ANY_SIZE)
    seen = sorted(subject.train + subject.val)
    motion = DrivingSequence.from_subject(subject, seen)
    if len(seen) == subject.frames:
        return motion
    logger.warning("%s: no face in %d of %d frames; they are interpolated.", root, subject.frames - len(seen),
                   subject.frames)  # fmt: skip
    return motion.stretched(torch.from_numpy(np.interp(range(subject.frames), seen, range(len(seen)))).float())


def _checked(motion: DrivingSequence, path: Path) -> DrivingSequence:
    """Refuse what cannot drive; bring the rest to 25 fps."""
    if not len(motion) or any(part.shape[1:] != shape for part, shape in (
        (motion.viewmats, (4, 4)), (motion.landmarks, (478, 3)), (motion.action_units, (6,)),
    )):  # fmt: skip
        raise UserError(
            f"{path} must hold one frame or more of viewmats [T, 4, 4], landmarks [T, 478, 3] and action_units [T, 6], "
            f"got {', '.join(f'{name} {list(part.shape)}' for name, part in motion.parts().items())}; track it again."
        )
    if not all(part.isfinite().all() for part in (motion.viewmats, motion.landmarks, motion.action_units)):
        raise UserError(f"{path} holds numbers that are not finite; track the video again.")
    return at_video_rate(motion)


def at_video_rate(motion: DrivingSequence) -> DrivingSequence:
    """Bring a motion to 25 fps, between its frames by interpolation."""
    if motion.fps == VIDEO_FPS:
        return motion
    frames = max(1, round(len(motion) * VIDEO_FPS / motion.fps))
    return motion.stretched((torch.arange(frames) * (motion.fps / VIDEO_FPS)).clamp(max=len(motion) - 1))
