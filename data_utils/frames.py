"""Stage `frames`: the video at 25 fps, cropped and scaled, as `ori_imgs/<k>.jpg`."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from data_utils.stage import Progress, no_progress
from gaussian_head.data.layout import VIDEO_FPS, SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.image import resize, write_jpeg
from gaussian_head.media.video import probe_video, read_frames_at, resampled_frame_count, sample_frames
from gaussian_head.networks.face_mesh import detect_face_boxes

logger = logging.getLogger(__name__)

MINIMUM_FRAMES = 50
JPEG_QUALITY = 98
Crop = Literal["auto", "none"]

_SAMPLES = 20
_FACE_SHARE = 0.47
"""Height of the box from brows to chin over the side of the crop."""
_FACE_CENTRE = 0.52
"""Where the box's centre lies in the crop, from the top: hair above takes as much as neck and shoulders below."""
_MARGIN = 0.12
"""Least room around every face seen, in crop sides."""


@dataclass(frozen=True)
class Box:
    """A crop, px of the source picture."""

    left: int
    top: int
    width: int
    height: int


def extract_frames(
    video: Path, layout: SubjectLayout, size: int, crop: Crop, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write `ori_imgs/<k>.jpg`, frame k showing the source at k / 25 s.

    Args:
        video: The raw video.
        layout: Where to; frames and landmarks of an earlier run are replaced, once all frames are ready.
        size: Longer side of the frames, px.
        crop: `auto` cuts a square around the head out of pictures that are not square; `none` keeps all of them.
        progress: Wraps the loop.

    Returns:
        Facts: frames, size, source (width, height, fps), crop box.

    Raises:
        FileNotFoundError: No such video.
        UserError: The video is refused by `check_length`, or no face is seen to crop around.
    """
    total = check_length(video)
    info = probe_video(video)
    box = choose_box(video, info.width, info.height, crop)
    width, height = _output_size(box, size)
    folder = layout.frame(0).parent
    incoming = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        count = 0
        for rgb in progress(read_frames_at(video, VIDEO_FPS), total, "frames"):
            cut = rgb[box.top : box.top + box.height, box.left : box.left + box.width]
            write_jpeg(incoming / f"{count}.jpg", resize(cut, width, height), JPEG_QUALITY)
            count += 1
        replace_frames(incoming, layout)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return {
        "frames": count,
        "size": [width, height],
        "fps": VIDEO_FPS,
        "source": {"width": info.width, "height": info.height, "fps": round(info.fps, 4)},
        "crop": asdict(box),
    }


def check_video(video: Path) -> int:
    """Refuse what can be refused without decoding the video.

    Returns:
        Its number of frames at 25 fps.

    Raises:
        FileNotFoundError: No such file.
        UserError: Empty, truncated, not a video, no sound, or fewer than 50 frames.
    """
    if not probe_video(video).has_audio:
        raise UserError(f"{video} has no sound; give a video in which the person can be heard.")
    return check_length(video)


def check_length(video: Path) -> int:
    """Refuse a video that is too short, without decoding it.

    Returns:
        Its number of frames at 25 fps.

    Raises:
        FileNotFoundError: No such file.
        UserError: Empty, truncated, not a video, or fewer than 50 frames.
    """
    count = resampled_frame_count(video, VIDEO_FPS)
    if count < MINIMUM_FRAMES:
        raise UserError(
            f"{video} has {count} frames at {VIDEO_FPS} fps ({count / VIDEO_FPS:.1f} s), at least {MINIMUM_FRAMES} are "
            "needed; record at least two seconds, better a minute or more."
        )
    return count


def choose_box(video: Path, width: int, height: int, crop: Crop) -> Box:
    """Choose the part of the picture to keep, the same for the whole clip.

    Raises:
        UserError: `auto`, a picture that is not square, and no face in any of the frames looked at.
    """
    if crop == "none" or width == height:
        return Box(0, 0, width, height)
    faces = detect_face_boxes(sample_frames(video, _SAMPLES))
    if not any(map(len, faces)):
        raise UserError(
            f"{video}: no face found in {_SAMPLES} frames spread over it; give a video of one person facing the camera."
        )
    if max(map(len, faces)) > 1:
        logger.warning(
            "two faces seen: the crop is placed around the largest; crop the video if that is the wrong one."
        )
    return head_box(_follow_largest(faces), width, height)


def _follow_largest(faces: list[Float[ndarray, "N 4"]]) -> Float[ndarray, "T 4"]:
    """Of each picture's boxes keep the one nearest to the largest box of all, if it is within a box of it."""
    largest = max((boxes[0] for boxes in faces if len(boxes)), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    kept = []
    for boxes in filter(len, faces):
        distance = np.linalg.norm(boxes - largest, axis=1) / 2
        if distance.min() < largest[2] - largest[0]:
            kept.append(boxes[distance.argmin()])
    return np.stack(kept)


def head_box(faces: Float[ndarray, "N 4"], width: int, height: int) -> Box:
    """Place a square around a head seen at several times.

    Args:
        faces: (left, top, right, bottom) from brows to chin, px.
        width: Of the picture, px.
        height: Of the picture, px.

    Returns:
        A square inside the picture with even side; the face takes about 47 % of it, less where the head moves much.
    """
    left, top, right, bottom = np.median(faces, 0)
    low, high = np.percentile(faces[:, :2], 5, axis=0), np.percentile(faces[:, 2:], 95, axis=0)
    reach = float((high - low).max()) / (1 - 2 * _MARGIN)
    side = min(max((bottom - top) / _FACE_SHARE, reach), width, height)
    side = int(side) // 2 * 2
    middle = (low + high) / 2
    x = int(np.clip(round(middle[0] - side / 2), 0, width - side))
    y = int(np.clip(round(middle[1] - side * _FACE_CENTRE), 0, height - side))
    return Box(x, y, side, side)


def _output_size(box: Box, size: int) -> tuple[int, int]:
    """Scale the longer side to `size`, both sides even."""
    scale = size / max(box.width, box.height)
    return round(box.width * scale / 2) * 2, round(box.height * scale / 2) * 2


def replace_frames(incoming: Path, layout: SubjectLayout) -> None:
    """Move a folder's frames (and landmark files) to `ori_imgs/`, where they replace all of an earlier run."""
    folder = layout.frame(0).parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in (layout.frame(0).suffix, layout.landmarks68(0).suffix) and path.stem.isdigit():
            path.unlink()
    for path in incoming.iterdir():
        path.replace(folder / path.name)
