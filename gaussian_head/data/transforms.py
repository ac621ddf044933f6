"""The cameras of a subject folder, `transforms_{train,val}.json`, of whatever tool (specs/gaussian_head.md a.1, c).

Another tool's world may be measured in another unit, and its frames may be counted otherwise than its pictures: where
`head_frame.json` stands beside them (`python -m data_utils.complete` writes it), it says how.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.files import write_bytes

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
FORMAT = 1


@dataclass(frozen=True)
class HeadFrame:
    """How another tool's cameras are to be read. Their axes are ours: x right, y up, z out of the face."""

    metres_per_unit: float = 1.0
    """Length of the unit in which the transforms files are measured."""
    frames: tuple[int, ...] | None = None
    """Number of the picture that each `img_id` means, where the poses were counted without the pictures that show no
    face (specs/gaussian_head.md k.1); None: the picture of the same number."""


@dataclass(frozen=True)
class Poses:
    """The cameras of one split."""

    focal_px: float
    center_px: tuple[float, float] | None
    """The principal point that the file names; None where it names none. Everybody takes the picture's centre."""
    fps: float | None
    """Frames per second that the file names, as ours do."""
    frames: list[int]
    """Numbers of the pictures, in the file's order."""
    c2w: Float[ndarray, "N 4 4"]
    """Camera to world, OpenGL axes, metres."""


def read_transforms(layout: SubjectLayout, split: Split, remedy: str, frame: HeadFrame | None = None) -> Poses:
    """Read one split.

    Args:
        layout: The folder.
        split: train or val.
        remedy: What to do about a file that is missing or damaged, as the end of a sentence.
        frame: How to read it; default: as the folder's `head_frame.json` says.

    Raises:
        FileNotFoundError: The file is missing.
        UserError: It is no transforms file, or names a frame twice.
    """
    path = layout.transforms(split)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    frame = read_head_frame(layout) if frame is None else frame
    try:
        document = json.loads(path.read_text())
        focal_px = float(document["focal_len"])
        center = (float(document["cx"]), float(document["cy"])) if "cx" in document and "cy" in document else None
        fps = float(document["fps"]) if "fps" in document else None
        numbers = [_picture(int(f["img_id"]), frame) for f in document["frames"]]
        c2w = np.array([_camera_to_world(f["transform_matrix"]) for f in document["frames"]]).reshape(-1, 4, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no transforms file (focal_len, frames of img_id and transform_matrix): {error}; {remedy}"
        ) from error
    twice = [k for i, k in enumerate(numbers) if k in set(numbers[:i])] if len(set(numbers)) < len(numbers) else []
    if twice:
        raise UserError(f"{path} must name each frame once, frame {twice[0]} comes twice; {remedy}")
    if not focal_px > 0:
        raise UserError(f"{path}: focal_len must be more than 0 px, got {focal_px}; {remedy}")
    c2w[:, :3, 3] *= frame.metres_per_unit
    return Poses(focal_px, center, fps, numbers, c2w)


def read_head_frame(layout: SubjectLayout) -> HeadFrame:
    """Read `head_frame.json`; without it the cameras are ours.

    Raises:
        UserError: It is damaged or of another format.
    """
    path = layout.head_frame
    if not path.is_file():
        return HeadFrame()
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']} instead of {FORMAT}")
        frames = document["frames"]
        frame = HeadFrame(float(document["metres_per_unit"]), None if frames is None else tuple(map(int, frames)))
        if not (np.isfinite(frame.metres_per_unit) and frame.metres_per_unit > 0):
            raise ValueError(f"metres_per_unit {frame.metres_per_unit} instead of a length")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and {layout.landmarks_3d.name}, "
            f"then run: python -m data_utils.complete {layout.root}"
        ) from error
    return frame


def write_head_frame(path: Path, frame: HeadFrame, facts: dict[str, Any]) -> None:
    """Write `head_frame.json`, with what else was found out, for people to read."""
    document = {"format": FORMAT, "metres_per_unit": frame.metres_per_unit, "frames": frame.frames, "facts": facts}
    write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())


def _picture(img_id: int, frame: HeadFrame) -> int:
    if img_id < 0 or (frame.frames is not None and img_id >= len(frame.frames)):
        limit = "0 or more" if frame.frames is None else f"0..{len(frame.frames) - 1}"
        raise ValueError(f"img_id must be {limit}, got {img_id}")
    return img_id if frame.frames is None else frame.frames[img_id]


def _camera_to_world(rows: Any) -> Float[ndarray, "4 4"]:  # noqa: ANN401 -- what the JSON holds
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"transform_matrix must be 4 x 4 numbers, got {rows}")
    return matrix
